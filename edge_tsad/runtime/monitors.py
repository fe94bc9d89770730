"""What can be wrong with the readings and scores of a stream, one judge for each.

Each keeps ``bad`` (bool[C], or bool where it concerns the stream) as a state with its own way out,
so that a restart neither forgets nor repeats it, and the little that it has learned as arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_tsad.types import NANOSECONDS, FloatArray, IndexArray, Now, Scores

__all__ = ["Constancy", "Drift", "Range", "Silence"]

Seconds = npt.NDArray[np.float64]
Arrays = dict[str, npt.NDArray[Any]]


class Silence:
    """NO_DATA, on the monotonic clock: nothing came for far longer than is usual.

    Without ``limit_s`` the limit of a channel is five times its longest recent interval, at least
    60 s and ten steps; 300 s while it is not known. A silent channel among others is told by their
    next readings, a silent stream by time alone: silence of all is one event.
    """

    def __init__(self, channels: int, step_s: float, hold: list[int], limit_s: float = 0) -> None:
        self.bad = np.zeros(channels, np.bool_)
        self.usual_s: Seconds = np.zeros(channels)
        self._least_s = np.maximum(10.0, 2.0 * np.array(hold)) * step_s
        self._limit_s = limit_s
        self._last_s: Seconds | None = None

    def limits_s(self) -> Seconds:
        """The limit of each channel in seconds."""
        if self._limit_s:
            return np.full(len(self.bad), self._limit_s)
        known = np.maximum(60.0, 5.0 * self.usual_s)
        limits: Seconds = np.where(self.usual_s > 0, known, 300.0)
        return np.fmax(limits, self._least_s)

    def take(self, present: npt.NDArray[np.bool_], now: Now) -> None:
        """Readings of some channels have arrived."""
        self._begin(now)
        assert self._last_s is not None
        gaps = now.monotonic_s - self._last_s
        limits = self.limits_s()
        learning = present & ~self.bad & (gaps < limits)
        usual = np.maximum(gaps, 0.999 * self.usual_s)
        self.usual_s = np.where(learning, usual, self.usual_s)
        self._last_s[present] = now.monotonic_s
        self.bad = ~present & (self.bad | (gaps > limits))

    def advance(self, now: Now) -> None:
        """Time has passed."""
        self._begin(now)
        assert self._last_s is not None
        if now.monotonic_s - float(self._last_s.max()) > float(self.limits_s().min()):
            self.bad[:] = True

    def _begin(self, now: Now) -> None:
        if self._last_s is None:
            self._last_s = np.full(len(self.bad), now.monotonic_s)

    def snapshot(self) -> Arrays:
        """What was learned."""
        return {"usual_s": self.usual_s}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on with what was learned."""
        self.usual_s = state["usual_s"].astype(np.float64).reshape(self.bad.shape)


class Constancy:
    """STUCK, in event time: a channel that used to vary is exactly constant for too long.

    It varies once it has changed 20 times. Without ``limit_s`` too long is ten times its longest
    recent constant stretch, at least 600 s and 100 steps. Gaps in the data count as ten steps.
    """

    def __init__(self, channels: int, step_s: float, limit_s: float = 0) -> None:
        self.bad = np.zeros(channels, np.bool_)
        self._limit_s, self._least_s, self._longest_step_s = limit_s, 100 * step_s, 10 * step_s
        # Rows: last value, its time (s), seconds since the last change, longest stretch, changes.
        self._state: Seconds = np.zeros((5, channels))
        self._state[0] = np.nan

    def take(self, times_ns: IndexArray, values: FloatArray) -> None:
        """Readings: i64[n], f32[n, C], NaN = none."""
        for channel in np.flatnonzero(~np.isnan(values).all(axis=0)):
            column = values[:, channel]
            present = ~np.isnan(column)
            self._follow(int(channel), times_ns[present] / NANOSECONDS, column[present])
        self.bad |= self._too_long()

    def _follow(self, channel: int, times_s: Seconds, values: FloatArray) -> None:
        value, time_s, constant_s, longest_s, changes = self._state[:, channel]
        if math.isnan(value):
            value, time_s = float(values[0]), float(times_s[0])
        steps = np.clip(np.diff(times_s, prepend=time_s), 0, self._longest_step_s)
        elapsed = np.cumsum(steps)
        changed = np.flatnonzero(np.diff(values.astype(np.float64), prepend=value))
        if len(changed):
            runs = np.diff(elapsed[changed], prepend=-constant_s)
            longest_s = max(longest_s * 0.99 ** len(changed), float(runs.max()))
            constant_s = float(elapsed[-1] - elapsed[changed[-1]])
            self.bad[channel] = False
        else:
            constant_s += float(elapsed[-1])
        last = (float(values[-1]), float(times_s[-1]))
        self._state[:, channel] = (*last, constant_s, longest_s, changes + len(changed))

    def _too_long(self) -> npt.NDArray[np.bool_]:
        _, _, constant_s, longest_s, changes = self._state
        limits = np.maximum(np.maximum(600.0, self._least_s), 10 * longest_s)
        too_long: npt.NDArray[np.bool_] = constant_s >= (self._limit_s or limits)
        varied: npt.NDArray[np.bool_] = changes >= 20
        return np.logical_and(too_long, varied)

    def snapshot(self) -> Arrays:
        """What was learned."""
        return {"constancy": self._state}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on with what was learned."""
        self._state = state["constancy"].astype(np.float64).reshape(self._state.shape)


class Range:
    """RANGE: readings outside the bounds that are declared, or else far outside what was seen.

    What was seen in 7 days of data, widened by three times its span on either side, is what is
    learned; what lies within widens it further. It ends after a minute and ten steps inside.
    """

    LEARNING_S = 7 * 86_400.0
    MARGIN = 3.0

    def __init__(self, low: Seconds, high: Seconds, step_s: float) -> None:
        """Bounds f64[C]; NaN where none is declared."""
        self.bad = np.zeros(len(low), np.bool_)
        self._low, self._high = low, high
        self._clear_s, self._longest_step_s = max(60.0, 10 * step_s), 10 * step_s
        self._seen = np.array([np.full(len(low), np.inf), np.full(len(low), -np.inf)])
        # Seconds of data so far, time of the newest reading, and of the last one outside (s).
        self._times = np.concatenate([[0.0, np.nan], np.full(len(low), -np.inf)])

    def bounds(self) -> tuple[Seconds, Seconds]:
        """What is allowed for each channel; infinite where nothing is known."""
        low, high = self._seen
        span = np.where(high > low, high - low, np.inf) * self.MARGIN
        if self._times[0] < self.LEARNING_S:
            span = np.full_like(span, np.inf)
        with np.errstate(invalid="ignore"):
            return (
                np.where(np.isnan(self._low), np.nan_to_num(low - span, nan=-np.inf), self._low),
                np.where(np.isnan(self._high), np.nan_to_num(high + span, nan=np.inf), self._high),
            )

    def take(self, times_ns: IndexArray, values: FloatArray) -> None:
        """Readings: i64[n], f32[n, C], NaN = none."""
        low, high = self.bounds()
        outside = (values < low) | (values > high)
        inside = np.where(outside | np.isnan(values), np.nan, values)
        self._seen[0] = np.fmin(self._seen[0], np.fmin.reduce(inside, axis=0))
        self._seen[1] = np.fmax(self._seen[1], np.fmax.reduce(inside, axis=0))
        seconds = times_ns / NANOSECONDS
        before = seconds[0] if math.isnan(self._times[1]) else self._times[1]
        steps = np.clip(np.diff(seconds, prepend=before), 0, self._longest_step_s)
        self._times[0] += float(steps.sum())
        self._times[1] = newest = float(seconds[-1])
        last_outside = self._times[2:]
        for channel in np.flatnonzero(outside.any(axis=0)):
            last_outside[channel] = seconds[np.flatnonzero(outside[:, channel])[-1]]
            self.bad[channel] = True
        self.bad &= np.abs(newest - last_outside) < self._clear_s

    def snapshot(self) -> Arrays:
        """What was learned."""
        return {"range": self._seen, "range_times": self._times}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on with what was learned."""
        self._seen = state["range"].astype(np.float64).reshape(self._seen.shape)
        self._times = state["range_times"].astype(np.float64).reshape(self._times.shape)


class Drift:
    """DRIFT: the scores have risen for good, though perhaps below the threshold.

    For ``points`` points, at least half of the valid scores were at or above ``level``, which the
    calibration exceeded rarely. It ends when half of them are below the middle between ``median``
    and ``level``.
    """

    BLOCKS = 24

    def __init__(self, points: int, level: float, median: float) -> None:
        self.bad = False
        self._block = max(1, points // self.BLOCKS)
        self._level, self._low = level, (level + median) / 2
        # Rows: valid points, those at or above the level, those at or above the end of a drift.
        self._counts = np.zeros((3, self.BLOCKS), np.int64)
        self._newest = np.full(1, -1, np.int64)

    def take(self, scores: Scores) -> None:
        """Scores whose index grows from call to call."""
        valid = ~np.isnan(scores.score)
        score = scores.score[valid]
        blocks = scores.index[valid] // self._block
        for block in np.unique(blocks):
            self._reach(int(block))
            part = score[blocks == block]
            counts = (len(part), (part >= self._level).sum(), (part >= self._low).sum())
            self._counts[:, block % self.BLOCKS] += counts

    def _reach(self, block: int) -> None:
        """Begin a block: judge what is complete, forget what is too old."""
        newest = int(self._newest[0])
        if block == newest:
            return
        self._judge()
        begun = range(max(newest + 1, block - self.BLOCKS + 1), block + 1)
        if block < newest or newest < 0:  # time began anew
            self._counts[:] = 0
        for number in begun:
            self._counts[:, number % self.BLOCKS] = 0
        self._newest[0] = block

    def _judge(self) -> None:
        valid, above, still = (int(total) for total in self._counts.sum(axis=1))
        if 2 * valid < self._block * self.BLOCKS:
            return
        self.bad = 2 * (still if self.bad else above) >= valid

    def snapshot(self) -> Arrays:
        """What was counted."""
        return {"drift": self._counts, "drift_newest": self._newest}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on counting."""
        self._counts = state["drift"].astype(np.int64).reshape(self._counts.shape)
        self._newest = state["drift_newest"].astype(np.int64).reshape(1)
