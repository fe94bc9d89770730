"""The alert state machine over arrays: where alerts open and close.

Calibration counts openings with it and the gateway alerts with it: there is no second definition.
It jumps from transition to transition; a stretch in which nothing changes costs a few array
operations. Symbols are those of :mod:`edge_tsad.types`; comparisons are made in float32, the type
of the scores, so that a threshold equal to a score is reached by it on every numpy.

Rules, all spans in points of the grid:

* ``minimum_duration`` points in a row at or above the threshold open an alert. A point without a
  score (NaN, or an index that never came) breaks the row: an alert needs evidence.
* An open alert closes after ``resolve_after`` points below the lower level. Points without a score
  neither count nor break that row: lost data resolves nothing.
* The ``cooldown`` points after a close neither open an alert nor begin a row.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_tsad.errors import ConfigError
from edge_tsad.types import FloatArray, IndexArray, PolicySettings

__all__ = ["Machine", "MachineState", "Span", "count_openings", "openings"]

NEVER = -(2**62)
"""An index before every other."""


class Span(NamedTuple):
    """The part of one alert that lies in a chunk; positions count from the chunk's first point.

    ``opened`` or ``closed`` is None where that happened in an earlier or will in a later chunk.
    """

    onset: int
    opened: int | None
    closed: int | None


@dataclass(frozen=True, slots=True)
class MachineState:
    """All that the machine carries from chunk to chunk.

    ``row``: points at or above the threshold so far (pending). ``onset``: index at which the row or
    the open alert began. ``quiet``: points below the lower level so far. ``closed``: index of the
    last close. ``last``: newest index seen.
    """

    open: bool = False
    row: int = 0
    onset: int = NEVER
    quiet: int = 0
    closed: int = NEVER
    last: int = NEVER


class _Rows:
    """Rows of consecutive true points; ``carried`` true points lie before the first one."""

    def __init__(self, mask: npt.NDArray[np.bool_], joined: bool | npt.NDArray[np.bool_]) -> None:
        follows = np.zeros(len(mask) + 1, np.bool_)
        follows[1:-1] = mask[:-1] & mask[1:]
        if not isinstance(joined, bool):
            follows[1:-1] &= joined
        self.length = len(mask)
        self.starts = np.flatnonzero(mask & ~follows[:-1])
        self.ends = np.flatnonzero(mask & ~follows[1:])

    def carry(self, count: int) -> None:
        """Let the row that begins at the first point, if any, have ``count`` points before it."""
        if len(self.starts) and self.starts[0] == 0:
            self.starts[0] = -count

    def first(self, earliest: int, need: int) -> tuple[int, int] | None:
        """First ``(start, reached)`` from ``earliest`` on where a row has grown to ``need``."""
        begin, block = int(np.searchsorted(self.ends, earliest)), 64
        while begin < len(self.ends):
            # Blocks that double: the next alert is mostly near, and short rows may be many.
            stop = begin + block
            starts = np.maximum(self.starts[begin:stop], earliest)
            enough = starts + (need - 1) <= self.ends[begin:stop]
            hit = int(np.argmax(enough))
            if enough[hit]:
                return int(starts[hit]), int(starts[hit]) + need - 1
            begin, block = stop, 2 * block
        return None

    def trailing(self, earliest: int) -> int:
        """Points from ``earliest`` on in the row that reaches the last point; 0 if none does."""
        if not len(self.ends) or self.ends[-1] != self.length - 1:
            return 0
        return max(0, self.length - max(int(self.starts[-1]), earliest))


class Machine:
    """idle → pending → open → idle over chunks of scores; any chunking gives the same.

    Raises:
        ConfigError: if ``threshold`` or ``median`` is not finite.
    """

    def __init__(self, threshold: float, median: float, settings: PolicySettings) -> None:
        self.settings = settings
        self.median = median
        self.state = MachineState()
        self.retune(threshold)

    def retune(self, threshold: float) -> None:
        """Judge the points from now on by ``threshold``; rows and an open alert are kept."""
        if not (np.isfinite(threshold) and np.isfinite(self.median)):
            raise ConfigError(
                f"threshold: {threshold} with median {self.median} is not finite; calibrate anew"
            )
        self.threshold = threshold
        lower = self.median + self.settings.hysteresis * (threshold - self.median)
        self._upper = np.float32(threshold)
        self._lower = np.float32(min(threshold, lower))

    def extend(self, index: IndexArray, score: FloatArray) -> list[Span]:
        """The alerts that are open anywhere in the chunk, in order.

        Args:
            index: i64[n], strictly increasing, after every index before.
            score: f32[n], NaN where withheld.
        """
        if not len(index):
            return []
        above = score >= self._upper
        if not self.state.open and not above.any():
            self.state = dataclasses.replace(self.state, row=0, last=int(index[-1]))
            return []
        return _Walk(self, index, score, above).run()

    def is_quiet(self, score: FloatArray) -> npt.NDArray[np.bool_]:
        """Which of the given scores lie below the lower level."""
        return score < self._lower


class _Walk:
    """One chunk's walk from transition to transition."""

    def __init__(
        self, machine: Machine, index: IndexArray, score: FloatArray, above: npt.NDArray[np.bool_]
    ) -> None:
        self.machine, self.index, self.score = machine, index, score
        state = machine.state
        gapless = int(index[-1]) - int(index[0]) == len(index) - 1
        self.above = _Rows(above, True if gapless else np.diff(index) == 1)
        self.row = state.row if int(index[0]) == state.last + 1 else 0
        self.above.carry(self.row)
        self.calm: _Rows | None = None
        self.valid: IndexArray = np.empty(0, np.int64)

    def run(self) -> list[Span]:
        state, settings = self.machine.state, self.machine.settings
        spans: list[Span] = []
        onset, closed = state.onset, state.closed
        opened: int | None = None
        position = self._after_cooldown(closed) or -self.row
        is_open = state.open
        while True:
            if not is_open:
                found = self.above.first(position, settings.minimum_duration)
                if found is None:
                    break
                onset = self._index(found[0])
                opened = found[1]
                is_open = True
            end = self._close(opened, settings.resolve_after)
            spans.append(Span(onset, opened, end))
            if end is None:
                break
            is_open = False
            closed = int(self.index[end])
            position = self._after_cooldown(closed)
        self.machine.state = self._carry(is_open, onset, opened, closed, position)
        return spans

    def _index(self, position: int) -> int:
        """Grid index of a position; those before the chunk belong to the carried row."""
        return int(self.index[0]) + position if position < 0 else int(self.index[position])

    def _after_cooldown(self, closed: int) -> int:
        return int(np.searchsorted(self.index, closed + self.machine.settings.cooldown, "right"))

    def _calm(self) -> _Rows:
        if self.calm is None:
            self.valid = np.flatnonzero(~np.isnan(self.score))
            self.calm = _Rows(self.machine.is_quiet(self.score[self.valid]), True)
            if self.machine.state.open:
                self.calm.carry(self.machine.state.quiet)
        return self.calm

    def _since(self, opened: int | None) -> int:
        """First scored point after the opening, as a position among the scored points."""
        if opened is None:
            return -self.machine.state.quiet
        return int(np.searchsorted(self.valid, opened, "right"))

    def _close(self, opened: int | None, need: int) -> int | None:
        calm = self._calm()
        found = calm.first(self._since(opened), need)
        return None if found is None else int(self.valid[found[1]])

    def _carry(
        self, is_open: bool, onset: int, opened: int | None, closed: int, position: int
    ) -> MachineState:
        last = int(self.index[-1])
        if not is_open:
            row = self.above.trailing(position)
            onset = last - row + 1 if row else NEVER
            return MachineState(row=row, onset=onset, closed=closed, last=last)
        calm = self._calm()
        quiet = calm.trailing(self._since(opened)) if len(self.valid) else self.machine.state.quiet
        return MachineState(open=True, onset=onset, quiet=quiet, closed=closed, last=last)


def openings(
    score: FloatArray, threshold: float, median: float, settings: PolicySettings
) -> IndexArray:
    """Positions at which alerts began in one unbroken stretch of scores.

    Args:
        score: f32[n], NaN where withheld.
        threshold: score at which an alert may open.
        median: median of the calibration scores, from which hysteresis is measured.
        settings: the policy, as on the gateway.

    Returns:
        i64[m]: for each alert the first point of the row that opened it, ascending.
    """
    index = np.arange(len(score), dtype=np.int64)
    spans = Machine(threshold, median, settings).extend(index, score)
    return np.array([span.onset for span in spans], np.int64)


def count_openings(
    score: FloatArray, threshold: float, median: float, settings: PolicySettings
) -> int:
    """How many alerts open in one unbroken stretch of scores; see :func:`openings`."""
    return len(openings(score, threshold, median, settings))
