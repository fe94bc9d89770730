"""From readings, which come as they like, to the cells of the grid.

Time is event time. The *watermark* is the newest reading's time less the lateness; a cell closes,
and is emitted, once the watermark has reached its end, and what comes for it afterwards is late.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_tsad.errors import ConfigError, DataError
from edge_tsad.runtime.open_cells import HoldLast, OpenCells
from edge_tsad.types import Cells, Channel, FloatArray, IndexArray, Now, Reading

__all__ = ["Resampler"]

EARLIEST_NS = -(2**61)
"""Times must lie after this (1896) and before `LATEST_NS` (2116), so that no sum overflows."""
LATEST_NS = 2**62
LATENESS_LIMIT_NS = 2**60
AHEAD_NS = 300 * 10**9
"""How far beyond the gateway's own, synchronised clock a reading is believed."""
LONGEST_HOLD = 10**6


class Resampler:
    """Joins the readings of several channels on a grid of step Δ, causally.

    Per channel a cell has the mean, the last (by time; of equal times the later arrival) or the
    maximum of its readings; a reading delivered twice counts twice in a mean. A channel without a
    reading in a cell has the value of its last cell for up to ``Channel.hold`` cells, and is then
    missing: value 0, observed 0. Cells in which every channel is missing are left out. Nothing is
    interpolated.

    Readings of any order are taken while their cell is open. Those that come after it closed are
    dropped and counted in ``late``; values that are infinite and times that are no time, or lie
    ahead of the clock by more than 300 s and a step, are dropped and counted in ``rejected``. A NaN
    value is a missing one: its time counts and nothing else.

    Args:
        step_ns: Δ in nanoseconds.
        channels: C ≥ 1 channels in their order.
        lateness_ns: how long a cell waits for readings after the newest one has passed its end. It
            adds to the declared delay.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(self, step_ns: int, channels: tuple[Channel, ...], lateness_ns: int = 0) -> None:
        _check(step_ns, channels, lateness_ns)
        self._step, self._lateness = step_ns, lateness_ns
        self._channels = len(channels)
        self._cells = OpenCells([channel.aggregate for channel in channels])
        self._hold = HoldLast([channel.hold for channel in channels])
        self._latest = EARLIEST_NS  # of all readings taken
        self._open = (EARLIEST_NS - lateness_ns) // step_ns  # first cell that is not closed
        self._ahead = LATEST_NS  # first time that is not believed
        self.late = 0
        self.rejected = 0

    @property
    def latest_ns(self) -> int | None:
        """The newest time taken so far; None before the first."""
        return self._latest if self._latest > EARLIEST_NS else None

    def push(self, reading: Reading) -> Cells:
        """One reading of one channel; returns the cells that it closes.

        Raises:
            DataError: there is no such channel.
        """
        if not 0 <= reading.channel < self._channels:
            raise DataError(
                f"reading: channel {reading.channel} is not one of 0 … {self._channels - 1}"
            )
        try:
            time_ns = operator.index(reading.time_ns)
        except TypeError:  # NaN, infinite, a string: the source could not tell the time
            time_ns = EARLIEST_NS
        if not EARLIEST_NS < time_ns < self._ahead:
            self.rejected += not math.isnan(reading.value)
            return Cells.empty(self._channels)
        if (
            time_ns // self._step == self._cells.newest
            and (time_ns - self._lateness) // self._step <= self._open
        ):
            return self._push_into_newest(reading.channel, time_ns, reading.value)
        row = np.full((1, self._channels), np.nan, np.float32)
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which is rejected
            row[0, reading.channel] = reading.value
        return self._take(np.array([time_ns], np.int64), row)

    def extend(self, times_ns: IndexArray, values: FloatArray) -> Cells:
        """Rows of readings in their order of arrival; returns the cells that they close.

        The same as `push` for each value of each row that is not NaN.

        Args:
            times_ns: i64[n], of any order.
            values: f32[n, C], NaN = no reading.

        Raises:
            DataError: the arrays have other types or shapes.
        """
        times, rows = np.asarray(times_ns), np.asarray(values)
        if times.ndim != 1 or not np.issubdtype(times.dtype, np.integer):
            raise DataError(
                f"times: {times.dtype} of shape {times.shape} are not whole nanoseconds, one a row"
            )
        if rows.shape != (len(times), self._channels):
            raise DataError(
                f"values: shape {rows.shape} is not {len(times)} rows of {self._channels}"
                " channel(s)"
            )
        with np.errstate(over="ignore"):
            rows = rows.astype(np.float32, copy=False)
        good = (times > EARLIEST_NS) & (times < self._ahead)
        if not good.all():
            self.rejected += int(np.count_nonzero(~np.isnan(rows[~good])))
            times, rows = times[good], rows[good]
        return self._take(times.astype(np.int64, copy=False), rows)

    def advance(self, now: Now) -> Cells:
        """Close the cells that the wall clock has left behind, if it can be believed.

        The wall closes a cell one step later than a newer reading would: readings are under way for
        a moment, and each cell's last ones would else be late. Call it every minute at least once
        it has been called at all, for readings ahead of the last such time are rejected; do not
        call it in a replay.
        """
        if not now.synchronised or not EARLIEST_NS < now.wall_ns < LATEST_NS:
            self._ahead = LATEST_NS
            return Cells.empty(self._channels)
        self._ahead = now.wall_ns + AHEAD_NS + self._step
        return self._close((now.wall_ns - self._lateness) // self._step - 1)

    def finish(self) -> Cells:
        """Close every cell up to the newest reading's: the stream has ended, or pauses."""
        return self._close(self._latest // self._step + 1)

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """The whole state as arrays that `restore` takes."""
        counters = [self._latest, self._open, self._ahead, self.late, self.rejected]
        return {
            "grid": np.array([self._step, self._lateness, self._channels], np.int64),
            "counters": np.array(counters, np.int64),
            **self._cells.snapshot(),
            **self._hold.snapshot(),
        }

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue where the snapshot was taken.

        Raises:
            DataError: the snapshot is of another grid or of other channels.
        """
        if state["grid"].tolist() != [self._step, self._lateness, self._channels]:
            raise DataError(
                "the saved state of the resampler is of another step, lateness or number of"
                " channels; remove it to start afresh"
            )
        counters = (int(value) for value in state["counters"])
        self._latest, self._open, _, self.late, self.rejected = counters
        self._ahead = LATEST_NS  # the clock has gone on: the next `advance` knows
        self._cells.restore(state)
        self._hold.restore(state)

    def _push_into_newest(self, channel: int, time_ns: int, value: float) -> Cells:
        """Most readings: the cell exists already and nothing closes. No arrays are made."""
        outcome = self._cells.add_to_newest(channel, time_ns, value)
        self.rejected += not outcome
        self._latest = max(self._latest, time_ns)
        return Cells.empty(self._channels)

    def _take(self, times: IndexArray, values: FloatArray) -> Cells:
        """Rows of believable times: drop what is late or infinite, aggregate, close."""
        if not len(times):
            return Cells.empty(self._channels)
        infinite = np.isinf(values)
        if infinite.any():
            self.rejected += int(np.count_nonzero(infinite))
            values = np.where(infinite, np.float32(np.nan), values)
        cells = times // self._step
        newest = np.maximum(np.maximum.accumulate(times), self._latest)
        late = cells < np.maximum((newest - self._lateness) // self._step, self._open)
        present = ~np.isnan(values)
        self.late += int(np.count_nonzero(present[late]))
        kept = ~late & present.any(axis=1)
        if not kept.all():
            times, values, cells, present = times[kept], values[kept], cells[kept], present[kept]
        self._cells.add(cells, times, values, present)
        self._latest = int(newest[-1])
        return self._close((self._latest - self._lateness) // self._step)

    def _close(self, end: int) -> Cells:
        """Close the cells before ``end`` and hold values into the empty ones among them."""
        if end <= self._open:
            return Cells.empty(self._channels)
        begin, self._open = self._open, end
        return self._hold.fill(self._cells.close(end), begin, end)


def _check(step_ns: int, channels: tuple[Channel, ...], lateness_ns: int) -> None:
    if step_ns < 1:
        raise ConfigError(f"timing.step_ns: {step_ns} is less than 1")
    if not channels:
        raise ConfigError("channels: there is none; name at least one")
    if not 0 <= lateness_ns < LATENESS_LIMIT_NS:
        raise ConfigError(f"lateness_ns: {lateness_ns} is negative or beyond 36 years")
    for channel in channels:
        if channel.hold > LONGEST_HOLD:
            raise ConfigError(
                f"channel.hold: {channel.hold} is more than {LONGEST_HOLD} cells ({channel.name})"
            )
