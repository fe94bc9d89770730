"""Samples from an MQTT broker: plain numbers and JSON, wildcards mapped to channels."""

from __future__ import annotations

import math
import queue
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from paho.mqtt.client import MQTTMessage

from edge_tsad.broker import BrokerConfig
from edge_tsad.errors import ConfigError, DataError
from edge_tsad.runtime.gathering import pace_s
from edge_tsad.runtime.sinks.connection import CONNECT_TIMEOUT_S, Client, guarded, make_client
from edge_tsad.runtime.sources.base import Batch, Complaints, batch_of
from edge_tsad.runtime.sources.topics import TopicMap, check_filter
from edge_tsad.types import Channel, Timing

__all__ = ["MqttSource"]

LARGEST_PAYLOAD = 1 << 16
MOST_WAITING = 10_000
ROWS = 512
LONGEST_WAIT_S = 0.25  # what comes meanwhile must find room
FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0


@dataclass(frozen=True, slots=True)
class MqttOptions:
    """``topic``: a filter whose messages name their channels; ``map``: filters to channels.

    An entry of ``map`` leads to a channel, or to a table of JSON keys and channels. ``time`` is the
    JSON key of a time stamp. ``broker`` is as the gateway's own; the default is on this machine.
    """

    topic: str = ""
    map: dict[str, str | dict[str, str]] = field(default_factory=dict)
    time: str = ""
    broker: BrokerConfig = field(default_factory=BrokerConfig)

    def __post_init__(self) -> None:
        if not (self.topic or self.map):
            raise ConfigError("source.topic: is missing, and there is no map either")
        for where in self.filters:
            if problem := check_filter(where):
                key = "topic" if where == self.topic else "map"
                raise ConfigError(f"source.{key}: {where!r} {problem}")

    @property
    def filters(self) -> tuple[str, ...]:
        """All that is subscribed to."""
        return (*((self.topic,) if self.topic else ()), *self.map)

    @property
    def targets(self) -> tuple[str, ...]:
        """The channels that ``map`` names, each once."""
        found: dict[str, None] = {}
        for target in self.map.values():
            found.update(dict.fromkeys([target] if isinstance(target, str) else target.values()))
        return tuple(found)

    def at(self, folder: Path) -> MqttOptions:
        """The same with relative paths of the broker's files taken from ``folder``."""
        return replace(self, broker=self.broker.at(folder))


class MqttSource:
    """Messages of a broker; see :class:`TopicMap` for how they become values.

    Samples without a time of their own are stamped on arrival. Retained messages are left out:
    nobody knows when they were measured. A broker that is not there is waited for.
    """

    Options: ClassVar[type[MqttOptions]] = MqttOptions

    def __init__(self, options: MqttOptions, channels: tuple[Channel, ...], timing: Timing) -> None:
        names = [channel.name for channel in channels]
        unknown = [name for name in options.targets if name not in names]
        if unknown:
            raise DataError(f"source mqtt: map names {unknown[0]!r}, which is none of {names}")
        absent = [name for name in names if name not in options.targets]
        if absent and not options.topic:
            raise DataError(f"source mqtt: map leads to no channel {', '.join(map(repr, absent))}")
        self.options = options
        self.live = timing.has_rate
        self.complaints = Complaints(f"source mqtt, {options.broker.url}")
        self._timing = timing
        self._pace_s = min(pace_s(timing), LONGEST_WAIT_S)
        self._width = len(channels)
        self._map = TopicMap(names, options.topic, options.map, options.time)
        self._arrived: queue.Queue[tuple[int, str, bytes]] = queue.Queue(MOST_WAITING)
        self._position = 0
        make_client(options.broker, "check")  # files that cannot be read are found now

    @classmethod
    def known_channels(cls, options: MqttOptions) -> tuple[Channel, ...]:
        """Those that ``map`` names, if it is all there is."""
        return () if options.topic else tuple(Channel(name) for name in options.targets)

    def batches(self, stop: threading.Event) -> Iterator[Batch]:
        """The messages that have arrived, at most 512 at a time, until ``stop``."""
        delay_s = FIRST_DELAY_S
        while not stop.is_set():
            client = self._client()
            try:
                self._connect(client)
                delay_s = FIRST_DELAY_S
                self.complaints.over("DISCONNECTED")
                while not (stop.is_set() or client.ended.is_set()):
                    messages = self._waiting()
                    yield from self._read(messages)
                    if len(messages) < ROWS:  # waited for together: each would cost a wake-up
                        stop.wait(self._pace_s)
                yield from self._read(self._waiting())
                problem = client.reason or "the connection was lost"
            except (OSError, ValueError, ConfigError) as e:
                problem = str(getattr(e, "strerror", None) or e)
            finally:
                client.disconnect()
                client.loop_stop()
            if not stop.is_set():
                self.complaints.note("DISCONNECTED", f"{problem}; it is tried again")
                stop.wait(delay_s)
                delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    def read(self, arrived_ns: int, topic: str, payload: bytes) -> tuple[int, list[float]] | None:
        """Time and row of one message; None, and counted, where it has none."""
        if len(payload) > LARGEST_PAYLOAD:
            self.complaints.note("MALFORMED", f"{topic!r}: more than {LARGEST_PAYLOAD} bytes")
            return None
        try:
            time_ns, values = self._map.read(topic, payload)
        except (ValueError, OverflowError, RecursionError) as e:
            reason = str(e)[:200]
            self.complaints.note("MALFORMED", f"a message of {topic!r} is left out: {reason}")
            return None
        if not values:
            return None
        row = [math.nan] * self._width
        for position, value in values.items():
            row[position] = value
        if not self._timing.has_rate:
            self._position += 1
            return (self._position - 1) * self._timing.step_ns, row
        return arrived_ns if time_ns is None else time_ns, row

    def _waiting(self) -> list[tuple[int, str, bytes]]:
        """What has arrived, at most 512 messages."""
        count = min(self._arrived.qsize(), ROWS)
        return [self._arrived.get_nowait() for _ in range(count)]

    def _read(self, messages: list[tuple[int, str, bytes]]) -> Iterator[Batch]:
        samples = [sample for each in messages if (sample := self.read(*each)) is not None]
        if samples:
            times, rows = zip(*samples, strict=True)
            yield batch_of(list(times), list(rows))

    def _client(self) -> Client:
        broker = self.options.broker
        name = broker.client_id or f"edge-tsad-source-{uuid.uuid4().hex[:8]}"
        client = make_client(broker, name)
        client.on_connect = guarded(self._on_connect)
        client.on_subscribe = guarded(self._on_subscribe)
        client.on_message = guarded(self._on_message)
        client.on_disconnect = guarded(self._on_disconnect)
        return client

    def _connect(self, client: Client) -> None:
        """Connect and subscribe.

        Raises:
            OSError: the broker is not there, does not answer, or refuses.
        """
        broker = self.options.broker
        client.connect(broker.host, broker.port, broker.keepalive_s)
        client.loop_start()
        if not client.answered.wait(CONNECT_TIMEOUT_S):
            raise TimeoutError("it accepts connections but does not answer")
        if not client.accepted:
            raise OSError(client.reason or "the connection ended without an answer")

    def _on_connect(self, client: Client, _data: Any, _flags: Any, code: Any, _rest: Any) -> None:
        if code.is_failure:
            client.reason = f"it refuses the connection: {code}"
            client.answered.set()
        else:
            client.subscribe([(where, 1) for where in self.options.filters])

    def _on_subscribe(
        self, client: Client, _data: Any, _mid: int, codes: list[Any], _rest: Any
    ) -> None:
        for where, code in zip(self.options.filters, codes, strict=False):
            if code.is_failure:
                self.complaints.note("REFUSED", f"the broker refuses {where!r}: {code}")
        client.accepted = True
        client.answered.set()

    def _on_message(self, client: Client, _data: Any, message: MQTTMessage) -> None:
        if message.retain:
            return
        payload = bytes(message.payload[: LARGEST_PAYLOAD + 1])
        try:
            self._arrived.put_nowait((time.time_ns(), message.topic, payload))
        except UnicodeDecodeError:
            self.complaints.note("MALFORMED", "a topic is no UTF-8 text")
        except queue.Full:
            self.complaints.note("OVERFLOW", "messages come faster than they can be scored")

    def _on_disconnect(
        self, client: Client, _data: Any, _flags: Any, code: Any, _rest: Any
    ) -> None:
        client.reason = client.reason or f"the connection was lost: {code}"
