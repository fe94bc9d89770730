"""What the gateway publishes and takes over MQTT, from one connection to the next.

All that is retained is said anew with each connection. Callbacks run in paho's thread and only set
flags or fill a queue; the gateway's own thread does all the rest.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence

from paho.mqtt.client import MQTTMessage

from edge_tsad.broker import BrokerConfig
from edge_tsad.runtime.sinks.base import Acknowledgement, Incoming, Proof, Reply
from edge_tsad.runtime.sinks.connection import Client, incoming, reply_properties
from edge_tsad.runtime.sinks.link import Link

__all__ = ["MqttSink"]

log = logging.getLogger(__name__)

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
        self._link = Link(broker, client_id, will, filters, probe=probe, listener=self)
        self._lock = threading.RLock()  # held over a publish: the newest word must be the last
        self._retained: dict[str, bytes] = {}
        self._waiting: dict[tuple[int, int], Answered] = {}
        self._answers: queue.SimpleQueue[tuple[int, int, str]] = queue.SimpleQueue()
        self._settled: list[Acknowledgement] = []
        self._cleared: list[str] = []
        self._incoming: queue.Queue[Incoming] = queue.Queue(MOST_INCOMING)
        self._replies: dict[int, Reply] = {}
        self._replied = 0

    @property
    def connection(self) -> int:
        """0 while there is none; else a number that grows with every new one."""
        return self._link.number

    @property
    def proof(self) -> Proof:
        """What an acknowledgement of this connection means."""
        return self._link.proof

    def start(self) -> None:
        """Begin to connect, in the background."""
        self._link.start()

    def tick(self) -> None:
        """Start the supervising thread again, should it have died."""
        self._link.tick()

    def deliver(self, topic: str, payload: bytes, token: int) -> bool:
        """Publish with QoS 1; False when there is no connection, or none that is tried yet."""
        client, number = self._link.client, self._link.number
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
        number = self._link.number
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
            client, connection = self._link.client, self._link.number
            if client is not None and connection:
                self._publish_reply(client, connection, number, reply)

    def offer(self, topic: str, payload: bytes) -> None:
        """Publish with QoS 0 if there is a connection."""
        client = self._link.client
        if client is not None and self._link.number:
            client.publish(topic, payload, qos=0)

    def close(self, farewell: tuple[str, bytes] | None, timeout_s: float) -> None:
        """Publish ``farewell`` retained, wait for its acknowledgement, and disconnect."""
        self._link.stop()
        client = self._link.client
        if client is not None and self._link.number:
            if farewell is not None:
                sent = client.publish(*farewell, qos=1, retain=True)
                try:
                    sent.wait_for_publish(timeout_s)
                except (RuntimeError, ValueError) as e:
                    log.warning("the last status could not be published: %s", e)
            client.disconnect()
        self._link.join(timeout_s)

    def _send(self, number: int, mid: int, answered: Answered) -> None:
        """Remember who waits for the answer to a message."""
        with self._lock:
            self._waiting[number, mid] = answered

    def _publish_retained(self, topics: list[str]) -> None:
        client, number = self._link.client, self._link.number
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

    def on_connected(self, client: Client, number: int) -> None:
        """In paho's thread: say everything retained anew, and what was not answered."""
        with self._lock:
            self._link.use(client, number)
            self._publish_retained(list(self._retained))
            for key, reply in list(self._replies.items()):
                self._publish_reply(client, number, key, reply)

    def on_answered(self, number: int, mid: int, refused: str) -> None:
        """In paho's thread: keep the answer until the gateway's thread asks."""
        self._answers.put((number, mid, refused))

    def on_received(self, message: MQTTMessage) -> None:
        """In paho's thread: keep the message likewise, as far as there is room."""
        try:
            self._incoming.put_nowait(incoming(message))
        except queue.Full:
            log.error("commands come faster than they are carried out; one is left out")
