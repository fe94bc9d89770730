"""Health conditions as alerts of their own kind: committed, delivered, and kept over restarts.

They go to ``alert/<stream>/health``, so that whoever subscribes to ``alert/+`` sees process alerts
only and ``alert/#`` sees both. Their ids are their own; sequence numbers are those of the outbox.
"""

from __future__ import annotations

import json
import logging
import math
import sqlite3
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final, Literal

import numpy.typing as npt

from edge_tsad.errors import DataError
from edge_tsad.runtime import payload
from edge_tsad.runtime.health import (
    CONDITIONS,
    REST_S,
    Condition,
    HealthEvent,
    StreamHealth,
)
from edge_tsad.runtime.opening import OpenStream
from edge_tsad.runtime.outbox import Outbox
from edge_tsad.runtime.sources.base import Batch
from edge_tsad.types import Now, Scores

__all__ = ["REFUSED", "HealthReporter"]

log = logging.getLogger(__name__)

REFUSED: Final = "MQTT_REFUSED"
MOST_CHANNELS = 8
REASONS = {
    "NO_DATA": ("no data comes{}", "data comes again{}"),
    "STUCK": ("does not change any more, though it used to{}", "changes again{}"),
    "RANGE": ("is outside its range{}", "is within its range again{}"),
    "CLOCK": ("the time of its samples cannot be believed", "the clock can be believed again"),
    "DRIFT": (
        "its scores have risen for good; if this is its new normal, train it anew",
        "its scores are as they were",
    ),
    REFUSED: ("the broker refuses its alerts", "the broker takes its alerts again"),
}


@dataclass(frozen=True, slots=True)
class Open:
    """An open health alert as it is kept: channels by name."""

    id: str
    channels: list[str]
    since_ns: int


class HealthReporter:
    """The health of one stream and its messages; everything is called by the gateway's thread."""

    def __init__(self, stream: OpenStream, outbox: Outbox) -> None:
        self.stream = stream
        self.facts = stream.facts
        self._names = [channel.name for channel in self.facts.channels]
        tail = self.facts.threshold.tail
        self.health = StreamHealth(
            stream.health, self.facts.timing, self.facts.channels, tail.level, tail.median
        )
        self.open: dict[str, Open] = {}
        self.failing = False
        self._outbox = outbox
        self._key = f"{self.facts.stream}/health"
        self._uncommitted: list[dict[str, Any]] = []
        self._not_before_s = -math.inf  # of REFUSED, which must not flap either
        self._reopen(outbox.state(self._key))

    @property
    def words(self) -> set[str]:
        """The conditions that hold."""
        return set(self.open)

    def describe(self) -> list[dict[str, Any]]:
        """The open conditions for ``state/<stream>``."""
        return [
            {
                "condition": name,
                "id": kept.id,
                "channels": kept.channels[:MOST_CHANNELS],
                "since": self._iso(kept.since_ns),
            }
            for name, kept in sorted(self.open.items())
        ]

    def take(self, batch: Batch, now: Now) -> None:
        """Samples have arrived."""
        live = self.stream.source.live
        self._say(self.health.take(batch.times_ns, batch.values, now, live=live), now)

    def scored(self, scores: Scores) -> None:
        """Scores became final."""
        self.health.scored(scores)

    def advance(self, now: Now) -> None:
        """Time passes; what could not be stored is tried again."""
        self._say(self.health.advance(now, live=self.stream.source.live), now)

    def refused(self, why: str, now: Now) -> None:
        """The broker refuses alerts of the stream, and ``why``; empty where it takes them.

        This too is told through the outbox: at once where only some topics are refused, else when
        the link allows it again.
        """
        before = self.open.get(REFUSED)
        if bool(why) == (before is not None) or (why and now.monotonic_s < self._not_before_s):
            return
        if before is not None:
            self._not_before_s = now.monotonic_s + REST_S
        since_ns = now.wall_ns if before is None else before.since_ns
        kind: Literal["new", "end"] = "new" if before is None else "end"
        self._say([HealthEvent(kind, REFUSED, (), since_ns, now.wall_ns, why)], now)

    def retry(self, now: Now) -> None:
        """Try again to store what could not be."""
        self._say([], now)

    @property
    def uncommitted(self) -> int:
        """How many messages are not in the outbox yet."""
        return len(self._uncommitted)

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """What was learned."""
        return self.health.snapshot()

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on with what was learned, if it fits."""
        try:
            self.health.restore(arrays)
        except DataError as e:
            log.info("%s: %s; it is learned anew", self.facts.stream, e)

    def _say(self, events: list[HealthEvent], now: Now) -> None:
        for event in events:
            self._note(event, now)
        if not self._uncommitted:
            return
        first = self._outbox.next_seq
        rows = [
            payload.pack({**message, "seq": first + i, "epoch": self._outbox.epoch})
            for i, message in enumerate(self._uncommitted)
        ]
        state = json.dumps({name: asdict(kept) for name, kept in self.open.items()})
        try:
            self._outbox.commit(self._key, rows, state.encode(), now)
        except sqlite3.Error as e:
            if not self.failing:
                log.error("%s: a health alert is not stored yet: %s", self.facts.stream, e)
            self.failing = True
            return
        self.failing = False
        self._uncommitted.clear()

    def _note(self, event: HealthEvent, now: Now) -> None:
        before = self.open.get(event.name)
        kept = Open(
            uuid.uuid4().hex[:16] if before is None else before.id,
            [self._names[position] for position in event.channels],
            event.since_ns,
        )
        if event.kind == "end":
            self.open.pop(event.name, None)
        else:
            self.open[event.name] = kept
        message = self._message(event, kept, now)
        level = logging.INFO if event.kind == "end" else logging.WARNING
        log.log(level, "%s", message["reason"])
        self._uncommitted.append(message)

    def _message(self, event: HealthEvent, kept: Open, now: Now) -> dict[str, Any]:
        shown = [payload.clip(name) for name in kept.channels[:MOST_CHANNELS]]
        return {
            "kind": "health",
            "id": kept.id,
            "seq": 0,
            "epoch": "",
            "type": event.kind,
            "late": False,
            "site": self.facts.site,
            "device": self.facts.device,
            "stream": self.facts.stream,
            "condition": event.name,
            "channels": shown,
            "more_channels": len(kept.channels) - len(shown),
            "since": self._iso(event.since_ns),
            "time": self._iso(event.time_ns),
            "clock_synchronised": now.synchronised,
            "reason": self._reason(event, kept, shown),
            "bundle": payload.clip(self.facts.bundle),
            "digest": self.facts.digest,
        }

    def _reason(self, event: HealthEvent, kept: Open, shown: list[str]) -> str:
        begun, ended = REASONS[event.name]
        words = ended if event.kind == "end" else begun
        if event.why and event.kind != "end":
            words = event.why
        more = len(kept.channels) - len(shown)
        names = ", ".join(shown) + (f" and {more} more" if more else "")
        if event.name in ("STUCK", "RANGE"):
            return f"{self.facts.stream}: {names} {words.format('')}."
        some = f" from {names}" if len(kept.channels) < len(self._names) else ""
        return f"{self.facts.stream}: {words.format(some)}."

    def _iso(self, time_ns: int) -> str | None:
        if not self.facts.timing.has_rate:
            return None
        try:
            moment = payload.EPOCH + timedelta(microseconds=time_ns // 1000)
        except OverflowError:
            return None
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def _reopen(self, data: bytes | None) -> None:
        """The conditions that were open when the process ended."""
        try:
            kept = {
                name: Open(str(entry["id"]), list(entry["channels"]), int(entry["since_ns"]))
                for name, entry in json.loads(data or b"{}").items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            log.warning("%s: the state of its health is not used: %s", self.facts.stream, e)
            return
        if REFUSED in kept:
            self.open[REFUSED] = kept[REFUSED]
        for name in CONDITIONS:
            if name in kept:
                known = [n for n in kept[name].channels if n in self._names]
                positions = tuple(sorted(self._names.index(channel) for channel in known))
                self.open[name] = kept[name]
                self.health.reopen(name, Condition(positions, kept[name].since_ns))
