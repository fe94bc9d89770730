"""The gateway's MQTT connection: comes back by itself, and says everything retained anew each time.

A supervising thread owns one client after another. Callbacks run in paho's thread and only set
flags or fill a queue; the gateway's own thread does all the rest.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

from paho.mqtt.client import MQTTMessage
from paho.mqtt.reasoncodes import ReasonCode

from edge_tsad.broker import BrokerConfig
from edge_tsad.errors import ConfigError
from edge_tsad.runtime.sinks.base import Acknowledgement, Incoming, Proof, Reply
from edge_tsad.runtime.sinks.connection import (
    CONNECT_TIMEOUT_S,
    Client,
    guarded,
    incoming,
    make_client,
    reply_properties,
    subscribe,
)
from edge_tsad.runtime.sinks.probe import Probe

__all__ = ["MqttSink"]

log = logging.getLogger(__name__)

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
MOST_INCOMING = 1000
MOST_REPLIES = 1000

Answered = Callable[[str], None]
"""What to do with the broker's answer: empty, or why it refuses."""


class MqttSink:
    """Publishes to the broker of ``broker`` under ``client_id``.

    ``will`` is the retained message (topic, payload) that the broker publishes when this connection
    dies; ``filters`` are subscribed to. Sessions are clean: what must not be lost is in the outbox,
    and a command that came while the gateway was away is not carried out later. ``probe`` is a
    topic on which the right to publish is tried where acknowledgements do not tell (MQTT 3.1.1).

    Raises:
        ConfigError: the password or a certificate cannot be read.
    """

    def __init__(
        self,
        broker: BrokerConfig,
        client_id: str,
        will: tuple[str, bytes],
        filters: Sequence[str] = (),
        probe: str = "",
    ) -> None:
        self.broker = broker
        self.client_id = client_id
        self.will = will
        self.filters = tuple(filters)
        self._probe = Probe(probe if broker.protocol != "5" else "")
        self._make()  # files that cannot be read are found before anything runs
        self._lock = threading.RLock()  # held over a publish: the newest word must be the last
        self._retained: dict[str, bytes] = {}
        self._client: Client | None = None
        self._connection = 0
        self._made = 0
        self._waiting: dict[tuple[int, int], Answered] = {}
        self._answers: queue.SimpleQueue[tuple[int, int, str]] = queue.SimpleQueue()
        self._settled: list[Acknowledgement] = []
        self._cleared: list[str] = []
        self._incoming: queue.Queue[Incoming] = queue.Queue(MOST_INCOMING)
        self._replies: dict[int, Reply] = {}
        self._replied = 0
        self._stop = threading.Event()
        self._said: set[str] = set()  # reasons, since there was no connection
        self._thread: threading.Thread | None = None

    @property
    def connection(self) -> int:
        """0 while there is none; else a number that grows with every new one."""
        return self._connection

    @property
    def proof(self) -> Proof:
        """What an acknowledgement of this connection means."""
        if self.broker.protocol == "5":
            return "confirmed"
        return self._probe.proof if self._connection else "waiting"

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
        """Publish with QoS 1; False when there is no connection, or none that is tried yet."""
        client, number = self._client, self._connection
        if client is None or not number or self.proof == "waiting":
            return False
        self._send(
            number, client.publish(topic, payload, qos=1).mid,
            lambda refused: self._settled.append(Acknowledgement(token, refused)),
        )  # fmt: skip
        return True

    def acknowledgements(self) -> list[Acknowledgement]:
        """The broker's answers to :meth:`deliver` since the last call."""
        while not self._answers.empty():
            number, mid, refused = self._answers.get()
            with self._lock:
                answered = self._waiting.pop((number, mid), None)
            if answered is not None:
                answered(refused)
        number = self._connection
        with self._lock:
            self._waiting = {key: each for key, each in self._waiting.items() if key[0] >= number}
        settled, self._settled = self._settled, []
        return settled

    def retain(self, topic: str, payload: bytes) -> None:
        """Publish retained with QoS 1, now and on every connection."""
        with self._lock:
            if self._retained.get(topic) == payload:
                return
            self._retained[topic] = payload
            self._publish_retained([topic])

    def clear(self, topic: str) -> None:
        """Publish an empty retained message, over this and further connections until it is taken.

        It deletes what was retained.
        """
        self.retain(topic, b"")

    def cleared(self) -> list[str]:
        """The topics that were cleared since the last call."""
        cleared, self._cleared = self._cleared, []
        return cleared

    def repeat(self, prefix: str) -> None:
        """Publish again what is retained on topics that begin with ``prefix``."""
        with self._lock:
            self._publish_retained([each for each in self._retained if each.startswith(prefix)])

    def received(self) -> list[Incoming]:
        """The messages that have come since the last call."""
        found = []
        while not self._incoming.empty():
            found.append(self._incoming.get_nowait())
        return found

    def reply(self, reply: Reply) -> None:
        """Publish with QoS 1, over this and further connections until it is acknowledged."""
        with self._lock:
            self._replied += 1
            number = self._replied
            self._replies[number] = reply
            while len(self._replies) > MOST_REPLIES:
                self._replies.pop(next(iter(self._replies)))
            if self._client is not None and self._connection:
                self._publish_reply(self._client, self._connection, number, reply)

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

    def _send(self, number: int, mid: int, answered: Answered) -> None:
        """Remember who waits for the answer to a message."""
        with self._lock:
            self._waiting[number, mid] = answered

    def _publish_retained(self, topics: list[str]) -> None:
        client, number = self._client, self._connection
        if client is None or not number:
            return  # each connection begins with all of it
        for topic in topics:
            payload = self._retained[topic]
            sent = client.publish(topic, payload, qos=1, retain=True)
            self._send(number, sent.mid, self._answer_for(topic, payload))

    def _answer_for(self, topic: str, payload: bytes) -> Answered:
        def answered(refused: str) -> None:
            if refused:
                log.warning("the broker refuses a retained message on %s: %s", topic, refused)
            elif not payload:
                with self._lock:
                    if self._retained.get(topic) == b"":
                        del self._retained[topic]
                self._cleared.append(topic)

        return answered

    def _publish_reply(self, client: Client, number: int, key: int, reply: Reply) -> None:
        properties = reply_properties(client, reply)
        sent = client.publish(reply.topic, reply.payload, qos=1, properties=properties)

        def answered(refused: str) -> None:
            self._replies.pop(key, None)
            if refused:
                log.warning("the broker refuses an answer on %s: %s", reply.topic, refused)

        self._send(number, sent.mid, answered)

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
        self._connection = 0
        self._client = None
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
        if self.filters:  # first, so that who sees it online can command it
            subscribe(client, self.filters)
        self._probe.begin(client)
        with self._lock:
            self._client = client
            self._connection = number
            self._publish_retained(list(self._retained))
            for key, reply in list(self._replies.items()):
                self._publish_reply(client, number, key, reply)
        client.accepted = True
        client.answered.set()
        level = logging.WARNING if self._said else logging.INFO
        log.log(level, "connected to the broker %s", self.broker.url)
        self._said.clear()

    def _on_publish(self, number: int, mid: int, reason: ReasonCode) -> None:
        self._answers.put((number, mid, str(reason) if reason.is_failure else ""))

    def _on_subscribe(self, client: Client, mid: int, reasons: list[ReasonCode]) -> None:
        self._probe.subscribed(client, mid)
        for reason in reasons:
            if reason.is_failure:
                log.error("the broker refuses the gateway's subscription: %s", reason)

    def _on_message(self, client: Client, data: Any, message: MQTTMessage) -> None:
        if self._probe.takes(message):
            return
        try:
            self._incoming.put_nowait(incoming(message))
        except queue.Full:
            log.error("commands come faster than they are carried out; one is left out")

    def _on_disconnect(self, number: int, client: Client, reason: ReasonCode) -> None:
        if self._connection == number:
            self._connection = 0
        client.reason = client.reason or client.lost(reason)

    def _say_down(self, reason: str) -> None:
        """Once for each reason until there is a connection."""
        if reason not in self._said:
            log.warning(
                "the broker %s is not there (%s); alerts are kept and sent when it is back",
                self.broker.url, reason,
            )  # fmt: skip
        self._said.add(reason)
