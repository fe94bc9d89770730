"""The gateway's MQTT connection: comes back by itself, and says everything retained anew each time.

A supervising thread owns one client after another. Callbacks run in paho's thread and only set
flags or fill a queue; the gateway's own thread does all the rest.
"""

from __future__ import annotations

import logging
import queue
import random
import threading

from paho.mqtt.reasoncodes import ReasonCode

from edge_tsad.broker import BrokerConfig
from edge_tsad.errors import ConfigError
from edge_tsad.runtime.sinks.base import Acknowledgement
from edge_tsad.runtime.sinks.connection import CONNECT_TIMEOUT_S, Client, guarded, make_client

__all__ = ["MqttSink"]

log = logging.getLogger(__name__)

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0


class MqttSink:
    """Publishes to the broker of ``broker`` under ``client_id``.

    ``will`` is the retained message (topic, payload) that the broker publishes when this connection
    dies. Sessions are clean: what must not be lost is in the outbox.

    Raises:
        ConfigError: the password or a certificate cannot be read.
    """

    def __init__(self, broker: BrokerConfig, client_id: str, will: tuple[str, bytes]) -> None:
        self.broker = broker
        self.client_id = client_id
        self.will = will
        self._make()  # files that cannot be read are found before anything runs
        self._lock = threading.Lock()
        self._retained: dict[str, bytes] = {}
        self._client: Client | None = None
        self._connection = 0
        self._made = 0
        self._tokens: dict[tuple[int, int], int] = {}
        self._answers: queue.SimpleQueue[tuple[int, int, str]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._said: set[str] = set()  # reasons, since there was no connection
        self._thread: threading.Thread | None = None

    @property
    def connection(self) -> int:
        """0 while there is none; else a number that grows with every new one."""
        return self._connection

    def start(self) -> None:
        """Begin to connect, in the background."""
        self._thread = threading.Thread(target=self._supervise, name="mqtt", daemon=True)
        self._thread.start()

    def tick(self) -> None:
        """Start the supervising thread again, should it have died."""
        if self._thread is not None and not self._thread.is_alive() and not self._stop.is_set():
            log.error("the MQTT thread had ended; it is started again")
            self._connection = 0
            self.start()

    def deliver(self, topic: str, payload: bytes, token: int) -> bool:
        """Publish with QoS 1; False when there is no connection."""
        client, number = self._client, self._connection
        if client is None or not number:
            return False
        sent = client.publish(topic, payload, qos=1)
        self._tokens[number, sent.mid] = token
        return True

    def acknowledgements(self) -> list[Acknowledgement]:
        """The broker's answers to :meth:`deliver` since the last call."""
        found = []
        while not self._answers.empty():
            number, mid, refused = self._answers.get()
            token = self._tokens.pop((number, mid), None)
            if token is not None:
                found.append(Acknowledgement(token, refused))
            elif refused:
                log.warning("the broker refused a retained message: %s", refused)
        number = self._connection
        self._tokens = {key: token for key, token in self._tokens.items() if key[0] == number}
        return found

    def retain(self, topic: str, payload: bytes) -> None:
        """Publish retained with QoS 1, now and on every connection."""
        with self._lock:
            if self._retained.get(topic) == payload:
                return
            self._retained[topic] = payload
            if self._client is not None and self._connection:
                self._client.publish(topic, payload, qos=1, retain=True)

    def offer(self, topic: str, payload: bytes) -> None:
        """Publish with QoS 0 if there is a connection."""
        client = self._client
        if client is not None and self._connection:
            client.publish(topic, payload, qos=0)

    def close(self, farewell: tuple[str, bytes] | None, timeout_s: float) -> None:
        """Publish ``farewell`` retained, wait for its acknowledgement, and disconnect."""
        self._stop.set()
        client = self._client
        if client is not None and self._connection:
            if farewell is not None:
                sent = client.publish(*farewell, qos=1, retain=True)
                try:
                    sent.wait_for_publish(timeout_s)
                except (RuntimeError, ValueError) as e:
                    log.warning("the last status could not be published: %s", e)
            client.disconnect()
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
        number = self._made
        client.on_connect = guarded(
            lambda c, _data, _flags, code, _rest: self._on_connect(number, c, code)
        )
        client.on_publish = guarded(
            lambda _c, _data, mid, code, _rest: self._on_publish(number, mid, code)
        )
        client.on_disconnect = guarded(
            lambda c, _data, _flags, code, _rest: self._on_disconnect(number, c, code)
        )
        client.connect(self.broker.host, self.broker.port, self.broker.keepalive_s)
        client.loop_start()
        if not client.answered.wait(CONNECT_TIMEOUT_S):
            client.disconnect()
            client.ended.wait(CONNECT_TIMEOUT_S)
            raise TimeoutError("it accepts connections but does not answer")
        was_connected = client.accepted
        client.ended.wait()
        self._connection = 0
        self._client = None
        if not self._stop.is_set():
            self._say_down(client.reason or "the connection ended without an answer")
        return was_connected

    def _on_connect(self, number: int, client: Client, reason: ReasonCode) -> None:
        if reason.is_failure:
            client.reason = f"it refuses the connection: {reason}"
            client.answered.set()
            return
        with self._lock:
            for topic, payload in self._retained.items():
                client.publish(topic, payload, qos=1, retain=True)
            self._client = client
            self._connection = number
        client.accepted = True
        client.answered.set()
        level = logging.WARNING if self._said else logging.INFO
        log.log(level, "connected to the broker %s", self.broker.url)
        self._said.clear()

    def _on_publish(self, number: int, mid: int, reason: ReasonCode) -> None:
        self._answers.put((number, mid, str(reason) if reason.is_failure else ""))

    def _on_disconnect(self, number: int, client: Client, reason: ReasonCode) -> None:
        if self._connection == number:
            self._connection = 0
        client.reason = client.reason or f"the connection was lost: {reason}"

    def _say_down(self, reason: str) -> None:
        """Once for each reason until there is a connection."""
        if reason not in self._said:
            log.warning(
                "the broker %s is not there (%s); alerts are kept and sent when it is back",
                self.broker.url, reason,
            )  # fmt: skip
        self._said.add(reason)
