"""Connections to one broker, one after another: a lost one is followed by the next by itself.

A supervising thread owns one client after another. Callbacks run in paho's thread.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from paho.mqtt.client import MQTTMessage
from paho.mqtt.reasoncodes import ReasonCode

from edge_tsad.broker import BrokerConfig
from edge_tsad.errors import ConfigError
from edge_tsad.runtime.sinks.base import Proof
from edge_tsad.runtime.sinks.connection import (
    CONNECT_TIMEOUT_S,
    Client,
    guarded,
    make_client,
    subscribe,
)
from edge_tsad.runtime.sinks.probe import Probe

__all__ = ["Link", "Listener"]

log = logging.getLogger(__name__)

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0


class Listener(Protocol):
    """Whoever uses the connections; all its methods are called in paho's thread."""

    def on_connected(self, client: Client, number: int) -> None:
        """Connection ``number`` was accepted: call :meth:`Link.use`, and publish what must be."""

    def on_answered(self, number: int, mid: int, refused: str) -> None:
        """The broker's answer to a message; empty, or why it refuses."""

    def on_received(self, message: MQTTMessage) -> None:
        """A message has come."""


class Link:
    """Keeps a connection to ``broker`` under ``client_id``, in the background.

    ``will`` is the retained message (topic, payload) that the broker publishes when a connection
    dies; ``filters`` are subscribed to. Sessions are clean. ``probe`` is a topic on which the right
    to publish is tried where acknowledgements do not tell (MQTT 3.1.1).

    Attributes:
        number: 0 while there is no connection; else it grows with every new one.
        client: of the connection, if there is one.

    Raises:
        ConfigError: the password or a certificate cannot be read.
    """

    def __init__(
        self,
        broker: BrokerConfig,
        client_id: str,
        will: tuple[str, bytes],
        filters: Sequence[str] = (),
        *,
        probe: str,
        listener: Listener,
    ) -> None:
        self.broker, self.client_id, self.will = broker, client_id, will
        self.number = 0
        self.client: Client | None = None
        self._filters, self._listener = tuple(filters), listener
        self._probe = Probe(probe if broker.protocol != "5" else "")
        self._make()  # files that cannot be read are found before anything runs
        self._made = 0
        self._stop = threading.Event()
        self._said: set[str] = set()  # reasons, since there was no connection
        self._thread: threading.Thread | None = None

    @property
    def proof(self) -> Proof:
        """What an acknowledgement of this connection means."""
        if self.broker.protocol == "5":
            return "confirmed"
        return self._probe.proof if self.number else "waiting"

    def start(self) -> None:
        """Begin to connect."""
        self._thread = threading.Thread(target=self._supervise, name="mqtt", daemon=True)
        self._thread.start()

    def tick(self) -> None:
        """Start the supervising thread again, should it have died."""
        if self._thread is not None and not self._thread.is_alive() and not self._stop.is_set():
            log.error("the MQTT thread had ended; it is started again")
            self.number = 0
            self.start()

    def use(self, client: Client, number: int) -> None:
        """From now on this is the connection."""
        self.client, self.number = client, number

    def stop(self) -> None:
        """Connect no more."""
        self._stop.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the thread."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _make(self) -> Client:
        client = make_client(self.broker, self.client_id)
        client.will_set(self.will[0], self.will[1], qos=1, retain=True)
        return client

    def _supervise(self) -> None:
        delay_s = FIRST_DELAY_S
        while not self._stop.is_set():
            try:
                was_connected = self._connect_once()
            except (OSError, ValueError, ConfigError) as e:
                self._say_down(str(getattr(e, "strerror", None) or e))
                was_connected = False
            delay_s = FIRST_DELAY_S if was_connected else min(2 * delay_s, LONGEST_DELAY_S)
            self._stop.wait(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads a fleet

    def _connect_once(self) -> bool:
        """One connection from its beginning to its end; whether the broker had accepted it."""
        client = self._make()
        self._made += 1
        self._listen(client, self._made)
        client.connect(self.broker.host, self.broker.port, self.broker.keepalive_s)
        client.loop_start()
        if not client.answered.wait(CONNECT_TIMEOUT_S):
            client.disconnect()
            client.ended.wait(CONNECT_TIMEOUT_S)
            raise TimeoutError("it accepts connections but does not answer")
        was_connected = client.accepted
        client.ended.wait()
        self.number = 0
        self.client = None
        if not self._stop.is_set():
            self._say_down(client.reason or "the connection ended without an answer")
        return was_connected

    def _listen(self, client: Client, number: int) -> None:
        """Give the callbacks of connection ``number`` to its client."""
        client.on_connect = guarded(
            lambda c, _data, _flags, code, _rest: self._on_connect(number, c, code)
        )
        client.on_publish = guarded(
            lambda _c, _data, mid, code, _rest: self._on_publish(number, mid, code)
        )
        client.on_subscribe = guarded(
            lambda c, _data, mid, codes, _rest: self._on_subscribe(c, mid, codes)
        )
        client.on_message = guarded(self._on_message)
        client.on_disconnect = guarded(
            lambda c, _data, _flags, code, _rest: self._on_disconnect(number, c, code)
        )

    def _on_connect(self, number: int, client: Client, reason: ReasonCode) -> None:
        if reason.is_failure:
            client.reason = f"it refuses the connection: {reason}"
            client.answered.set()
            return
        if self._filters:  # first, so that who sees it online can command it
            subscribe(client, self._filters)
        self._probe.begin(client)
        self._listener.on_connected(client, number)
        client.accepted = True
        client.answered.set()
        level = logging.WARNING if self._said else logging.INFO
        log.log(level, "connected to the broker %s", self.broker.url)
        self._said.clear()

    def _on_publish(self, number: int, mid: int, reason: ReasonCode) -> None:
        self._listener.on_answered(number, mid, str(reason) if reason.is_failure else "")

    def _on_subscribe(self, client: Client, mid: int, reasons: list[ReasonCode]) -> None:
        self._probe.subscribed(client, mid)
        for reason in reasons:
            if reason.is_failure:
                log.error("the broker refuses the gateway's subscription: %s", reason)

    def _on_message(self, client: Client, data: Any, message: MQTTMessage) -> None:
        if not self._probe.takes(message):
            self._listener.on_received(message)

    def _on_disconnect(self, number: int, client: Client, reason: ReasonCode) -> None:
        if self.number == number:
            self.number = 0
        client.reason = client.reason or client.lost(reason)

    def _say_down(self, reason: str) -> None:
        """Once for each reason until there is a connection."""
        if reason not in self._said:
            log.warning(
                "the broker %s is not there (%s); alerts are kept and sent when it is back",
                self.broker.url, reason,
            )  # fmt: skip
        self._said.add(reason)
