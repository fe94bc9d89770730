"""The health of a stream's data, beside its anomalies and never mixed with them.

Readings, scores and ``advance(now)`` go in, events come out; no clock is read. Five conditions,
each raised and ended by itself: NO_DATA, STUCK, RANGE, CLOCK and DRIFT; when is told by
:mod:`edge_tsad.runtime.monitors` and :mod:`edge_tsad.runtime.clock_judge`. A condition that ended
is not raised again for ten minutes, and says at most once a minute that other channels are
affected: it cannot flap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edge_tsad.errors import ConfigError, DataError
from edge_tsad.runtime.clock_judge import ClockJudge
from edge_tsad.runtime.monitors import Constancy, Drift, Range, Silence
from edge_tsad.types import NANOSECONDS, Channel, FloatArray, IndexArray, Now, Scores, Timing

__all__ = ["CONDITIONS", "Condition", "HealthEvent", "HealthSettings", "StreamHealth"]

Name = Literal["NO_DATA", "STUCK", "RANGE", "CLOCK", "DRIFT"]
CONDITIONS: tuple[Name, ...] = ("NO_DATA", "STUCK", "RANGE", "CLOCK", "DRIFT")
REST_S = 600.0
UPDATE_S = 60.0
EVERY_S = 1.0
LOOK_S = 5.0
ROWS = 512
DRIFT_POINTS = 10_000


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """When a stream's data is unwell; 0 for a time lets the gateway learn it.

    ``no_data_s``: silence. ``stuck_s``: an exactly constant value. ``bounds``: lowest and highest
    possible value by channel. ``drift_s``: how long raised scores are a drift (without a rate:
    10,000 points). ``unsynchronised_s``: how long the clock may go without synchronisation.
    ``off``: conditions that are not watched.
    """

    no_data_s: float = 0.0
    stuck_s: float = 0.0
    drift_s: float = 86_400.0
    unsynchronised_s: float = 600.0
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)
    off: tuple[Name, ...] = ()

    def __post_init__(self) -> None:
        for name in ("no_data_s", "stuck_s", "unsynchronised_s"):
            if getattr(self, name) < 0:
                raise ConfigError(f"health.{name}: {getattr(self, name)} is negative")
        if self.drift_s <= 0:
            raise ConfigError(f"health.drift_s: {self.drift_s} is not positive")
        for channel, (low, high) in self.bounds.items():
            if not low < high:
                raise ConfigError(f"health.bounds: of {channel!r}, {low} is not below {high}")

    def check(self, channels: tuple[Channel, ...]) -> None:
        """Refuse bounds of channels that are not there.

        Raises:
            ConfigError: one is not.
        """
        known = [channel.name for channel in channels]
        for name in self.bounds:
            if name not in known:
                raise ConfigError(f"health.bounds: has no channel {name!r}: {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that holds: the channels (positions; none: the stream) and since when."""

    channels: tuple[int, ...]
    since_ns: int


@dataclass(frozen=True, slots=True)
class HealthEvent:
    """``time_ns`` is the samples' own time for STUCK, RANGE and DRIFT, else the clock's.

    MQTT_REFUSED is of the way to the broker and not raised here.
    """

    kind: Literal["new", "update", "end"]
    name: Name | Literal["MQTT_REFUSED"]
    channels: tuple[int, ...]
    since_ns: int
    time_ns: int
    why: str = ""


class StreamHealth:
    """Watches one stream.

    Args:
        settings: when it is unwell.
        timing: its grid.
        channels: C of them; bounds of others are refused.
        level: score that the calibration exceeded rarely.
        median: median score of the calibration.
    """

    def __init__(
        self,
        settings: HealthSettings,
        timing: Timing,
        channels: tuple[Channel, ...],
        level: float,
        median: float,
    ) -> None:
        settings.check(channels)
        step_s = timing.step_ns / NANOSECONDS
        count = len(channels)
        hold = [channel.hold for channel in channels]
        none = (np.nan, np.nan)
        declared = np.array([settings.bounds.get(channel.name, none) for channel in channels])
        points = int(settings.drift_s / step_s) if timing.has_rate else DRIFT_POINTS
        self.silence = Silence(count, step_s, hold, settings.no_data_s)
        self.constancy = Constancy(count, step_s, settings.stuck_s)
        self.range = Range(declared[:, 0], declared[:, 1], step_s)
        self.clock = ClockJudge(step_s, settings.unsynchronised_s)
        self.drift = Drift(points, level, median)
        self.open: dict[Name, Condition] = {}
        self._watched = [name for name in CONDITIONS if name not in settings.off]
        self._has_rate = timing.has_rate
        self._waiting: list[tuple[IndexArray, FloatArray]] = []
        self._rows = 0
        self._newest_ns = 0
        self._noted = 0
        self._due_s = self._look_s = -np.inf
        self._rest_until_s: dict[Name, float] = {}
        self._said_s: dict[Name, float] = {}

    def take(
        self, times_ns: IndexArray, values: FloatArray, now: Now, *, live: bool
    ) -> list[HealthEvent]:
        """Readings as they arrived: i64[n], f32[n, C] with NaN = none; ``live`` as the source's."""
        self._waiting.append((times_ns, values))
        self._rows += len(times_ns)
        if self._rows < ROWS:
            return []
        self._note_arrivals(now, live=live)
        self._look()
        return self._events(now)

    def scored(self, scores: Scores) -> None:
        """Points whose scores became final."""
        self.drift.take(scores)

    def advance(self, now: Now, *, live: bool) -> list[HealthEvent]:
        """Time passes; at most once a second there is anything to do."""
        if now.monotonic_s < self._due_s:
            return []
        self._due_s = now.monotonic_s + EVERY_S
        self._note_arrivals(now, live=live)
        if now.monotonic_s >= self._look_s:
            self._look_s = now.monotonic_s + LOOK_S
            self._look()
        self.silence.advance(now)
        self.clock.advance(now, live=live and self._has_rate)
        return self._events(now)

    def reopen(self, name: Name, condition: Condition) -> None:
        """After a restart: this condition still holds, until the data says otherwise."""
        self.open[name] = condition
        judge = self._judges()[name]
        if isinstance(judge, Drift | ClockJudge):
            judge.bad = True
        else:
            judge.bad[[c for c in condition.channels if c < len(judge.bad)]] = True

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """What was learned; the open conditions are kept with their alerts."""
        learners = (self.silence, self.constancy, self.range, self.drift)
        return {name: array for each in learners for name, array in each.snapshot().items()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on with what was learned.

        Raises:
            DataError: it is incomplete or of other channels.
        """
        try:
            for each in (self.silence, self.constancy, self.range, self.drift):
                each.restore(state)
        except (KeyError, ValueError) as e:
            raise DataError(f"the saved health does not fit: {e}") from e

    def _judges(self) -> dict[Name, Silence | Constancy | Range | ClockJudge | Drift]:
        return {
            "NO_DATA": self.silence,
            "STUCK": self.constancy,
            "RANGE": self.range,
            "CLOCK": self.clock,
            "DRIFT": self.drift,
        }

    def _events(self, now: Now) -> list[HealthEvent]:
        events = []
        for name, judge in self._judges().items():
            if name in self._watched:
                bad = judge.bad
                whole = isinstance(judge, ClockJudge | Drift)
                channels = () if whole else tuple(np.flatnonzero(bad).tolist())
                event = self._judge(name, channels, now, holds=bool(np.any(bad)))
                events += [event] if event else []
        return events

    def _note_arrivals(self, now: Now, *, live: bool) -> None:
        """Who has spoken since last time, once a second: for each sample it would cost."""
        fresh = self._waiting[self._noted :]
        if not fresh:
            return
        self._noted = len(self._waiting)
        self._newest_ns = int(fresh[-1][0][-1])
        missing: npt.NDArray[np.bool_] = np.isnan(np.concatenate([part[1] for part in fresh]))
        self.silence.take(~missing.all(axis=0), now)  # type: ignore[arg-type]
        if live and self._has_rate:
            self.clock.take(self._newest_ns, now)

    def _look(self) -> None:
        """At the values themselves, every five seconds, or sooner where many have come."""
        if not self._waiting:
            return
        times = np.concatenate([part[0] for part in self._waiting])
        values = np.concatenate([part[1] for part in self._waiting])
        self._waiting.clear()
        self._rows = self._noted = 0
        self.constancy.take(times, values)
        self.range.take(times, values)

    def _judge(
        self, name: Name, channels: tuple[int, ...], now: Now, *, holds: bool
    ) -> HealthEvent | None:
        """The event that brings what was said of a condition in line with what is so."""
        said = self.open.get(name)
        time_ns = now.wall_ns if name in ("NO_DATA", "CLOCK") else self._newest_ns
        why = self.clock.why if name == "CLOCK" else ""
        if said is None:
            if not holds or now.monotonic_s < self._rest_until_s.get(name, -np.inf):
                return None
            self.open[name] = Condition(channels, time_ns)
            self._said_s[name] = now.monotonic_s
            return HealthEvent("new", name, channels, time_ns, time_ns, why)
        if not holds:
            del self.open[name]
            self._rest_until_s[name] = now.monotonic_s + REST_S
            return HealthEvent("end", name, said.channels, said.since_ns, time_ns, why)
        if channels == said.channels or now.monotonic_s < self._said_s.get(name, -1e9) + UPDATE_S:
            return None
        self.open[name] = Condition(channels, said.since_ns)
        self._said_s[name] = now.monotonic_s
        return HealthEvent("update", name, channels, said.since_ns, time_ns, why)
