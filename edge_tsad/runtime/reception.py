"""The gateway as seen from MQTT: its connection, what it takes in, and what it retains there."""

from __future__ import annotations

from collections.abc import Sequence

from edge_tsad.config import GatewayConfig
from edge_tsad.runtime import payload
from edge_tsad.runtime.delivery import Delivery
from edge_tsad.runtime.desk import Desk
from edge_tsad.runtime.health_alerts import REFUSED
from edge_tsad.runtime.home_assistant import discovery
from edge_tsad.runtime.outbox import Outbox
from edge_tsad.runtime.retained import RetainedTopics
from edge_tsad.runtime.sinks.base import Sink
from edge_tsad.runtime.sinks.mqtt import MqttSink
from edge_tsad.runtime.topics import Topics
from edge_tsad.runtime.worker import StreamWorker
from edge_tsad.types import Now

__all__ = ["Reception", "birth_topic", "connect"]

MQTT_UNPROVEN = "MQTT_UNPROVEN"


class Reception:
    """Answers commands, keeps discovery up, and says how far the broker can be relied upon."""

    def __init__(
        self,
        config: GatewayConfig,
        workers: Sequence[StreamWorker],
        outbox: Outbox,
        delivery: Delivery,
        sink: Sink,
    ) -> None:
        self.config = config
        self._workers = workers
        self._delivery = delivery
        self._sink = sink
        topics = Topics(config.site, config.device)
        self._desk = Desk(config.commands, topics, workers, outbox, delivery)
        facts = [worker.facts for worker in workers]
        states = [topics.state(each.stream) for each in facts]
        self._retained = RetainedTopics(outbox, sink, states, discovery(config, facts))

    def begin(self, now: Now) -> None:
        """Before the connection is made."""
        self._retained.begin(now)

    def tick(self, now: Now) -> None:
        """To be called a few times a second."""
        self._retained.tick(now)
        unproven = self._sink.connection > 0 and self._sink.proof == "unproven"
        refused = self._delivery.refused_streams
        for worker in self._workers:
            holds = worker.facts.stream in refused
            mark(worker.health, REFUSED, holds=holds)
            why = f"the broker refuses its alerts ({self._delivery.refused})" if holds else ""
            worker.reporter.refused(why, now)
            mark(worker.health, MQTT_UNPROVEN, holds=unproven)

    def answer(self, now: Now) -> bool:
        """Do what was asked for, and say whether anything was.

        Home Assistant is told of the entities when it begins.
        """
        received = self._sink.received()
        for message in received:
            if message.topic == birth_topic(self.config):
                if message.payload == b"online" and not message.retained:
                    self._sink.repeat(f"{self.config.home_assistant.prefix}/device/")
            elif (reply := self._desk.handle(message, now)) is not None:
                self._sink.reply(reply)
        return bool(received)


def mark(words: set[str], word: str, *, holds: bool) -> None:
    """Let ``word`` be among ``words`` if it holds, and only then."""
    if holds:
        words.add(word)
    else:
        words.discard(word)


def connect(config: GatewayConfig) -> MqttSink:
    """The connection of a gateway, which is not made yet.

    Raises:
        ConfigError: the password or a certificate cannot be read.
    """
    topics, broker = Topics(config.site, config.device), config.broker
    will = (topics.status, payload.pack({"online": False, "reason": "lost"}))
    filters = [topics.command("+")]
    if config.home_assistant.discovery:
        filters.append(birth_topic(config))
    name = broker.client_id or f"edge-tsad-{config.site}-{config.device}"
    return MqttSink(broker, name, will, filters, topics.probe)


def birth_topic(config: GatewayConfig) -> str:
    """Where Home Assistant says that it has begun."""
    return f"{config.home_assistant.prefix}/status"
