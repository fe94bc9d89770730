"""The two halves of the resampler's memory: cells still open, and values that are held."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_tsad.runtime.rows import forward_fill
from edge_tsad.types import Aggregate, Cells, FloatArray, IndexArray

__all__ = ["HoldLast", "OpenCells"]

NEVER = -(2**62)
"""Before every cell and every time; far enough from the int64 limits to subtract from any."""

STATE = ("open_index", "open_total", "open_count", "open_stamp")


class OpenCells:
    """Running aggregates of the cells that are not closed yet, in the order of their index.

    Per channel and cell: a float64 ``total`` (the sum, the maximum or the last value), the
    ``count`` of readings and, for ``last``, the ``stamp`` (time, ns) of the one that is kept. Sums
    run in the order of arrival, so that one reading at a time and a million at once give the same
    bits.
    """

    def __init__(self, aggregates: Sequence[Aggregate]) -> None:
        self._aggregates = tuple(aggregates)
        self._mean = np.array([aggregate == "mean" for aggregate in aggregates])
        self._start = np.where([aggregate == "max" for aggregate in aggregates], -np.inf, 0.0)
        self._index: IndexArray = np.empty(0, np.int64)
        self._total, self._count, self._stamp = self._blank(0)
        self.newest = NEVER
        """Index of the newest open cell."""

    def add(
        self,
        cells: IndexArray,
        times: IndexArray,
        values: FloatArray,
        present: npt.NDArray[np.bool_],
    ) -> None:
        """Aggregate rows, in their order of arrival, into their cells.

        Args:
            cells: i64[n], the cell of each row.
            times: i64[n], ns.
            values: f32[n, C].
            present: bool[n, C], which values to take.
        """
        if not len(cells):
            return
        rows = self._rows_of(cells)
        for channel, aggregate in enumerate(self._aggregates):
            mask = present[:, channel]
            every = bool(mask.all())
            at = rows if every else rows[mask]
            added = (values[:, channel] if every else values[mask, channel]).astype(np.float64)
            total = self._total[channel]
            np.add.at(self._count[channel], at, 1)
            if aggregate == "mean":
                np.add.at(total, at, added)
            elif aggregate == "max":
                np.maximum.at(total, at, added)
            else:
                self._keep_last(channel, at, added, times if every else times[mask])

    def add_to_newest(self, channel: int, time_ns: int, value: float) -> bool:
        """`add` one value to the newest cell; a NaN changes nothing. False if it is infinite."""
        with np.errstate(over="ignore"):
            exact = float(np.float32(value))
        if math.isnan(exact):
            return True
        if math.isinf(exact):
            return False
        aggregate, total = self._aggregates[channel], self._total[channel]
        if aggregate == "mean":
            total[-1] += exact
        elif aggregate == "max":
            total[-1] = max(total[-1], exact)
        elif time_ns >= self._stamp[channel, -1]:
            total[-1] = exact
            self._stamp[channel, -1] = time_ns
        self._count[channel, -1] += 1
        return True

    def close(self, end: int) -> Cells:
        """Take out the cells before ``end``."""
        n = int(np.searchsorted(self._index, end))
        count = self._count[:, :n]
        observed = count > 0
        divisor = np.where(self._mean[:, None] & observed, count, 1)
        values = np.where(observed, self._total[:, :n] / divisor, 0)
        closed = Cells(
            self._index[:n],
            np.ascontiguousarray(values.T, np.float32),
            np.ascontiguousarray(observed.T, np.float32),
        )
        # Copies: a view would keep the arrays of a long chunk alive.
        self._set(
            self._index[n:].copy(),
            self._total[:, n:].copy(),
            self._count[:, n:].copy(),
            self._stamp[:, n:].copy(),
        )
        return closed

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """Copies of the aggregates."""
        arrays = (self._index, self._total, self._count, self._stamp)
        return {name: array.copy() for name, array in zip(STATE, arrays, strict=True)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Hold the aggregates of a snapshot."""
        index, total, count, stamp = (state[name].copy() for name in STATE)
        self._set(index, total, count, stamp)

    def _rows_of(self, cells: IndexArray) -> IndexArray:
        """Position of each of ``cells`` among the open ones, which are widened to hold them all."""
        if (cells[1:] >= cells[:-1]).all():
            wanted = cells[np.concatenate([[True], cells[1:] != cells[:-1]])]
        else:
            wanted = np.unique(cells)
        if len(self._index):
            wanted = np.union1d(self._index, wanted)
        if len(wanted) > len(self._index):
            held = np.searchsorted(wanted, self._index)
            arrays = self._blank(len(wanted))
            for new, old in zip(arrays, (self._total, self._count, self._stamp), strict=True):
                new[:, held] = old
            self._set(wanted, *arrays)
        return np.searchsorted(wanted, cells)

    def _keep_last(
        self, channel: int, at: IndexArray, values: npt.NDArray[np.float64], times: IndexArray
    ) -> None:
        total, stamp = self._total[channel], self._stamp[channel]
        newer = times >= stamp[at]
        at, values, times = at[newer], values[newer], times[newer]
        order = np.argsort(times, kind="stable")  # of equal times, the later arrival stays
        total[at[order]] = values[order]
        stamp[at[order]] = times[order]

    def _blank(
        self, n: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        channels = len(self._aggregates)
        total = np.repeat(self._start[:, None], n, axis=1)
        return total, np.zeros((channels, n), np.int64), np.full((channels, n), NEVER, np.int64)

    def _set(
        self,
        index: IndexArray,
        total: npt.NDArray[np.float64],
        count: npt.NDArray[np.int64],
        stamp: npt.NDArray[np.int64],
    ) -> None:
        self._index, self._total, self._count, self._stamp = index, total, count, stamp
        self.newest = int(index[-1]) if len(index) else NEVER


class HoldLast:
    """Lets a channel's last value stand for the next cells in which it has none.

    Args:
        holds: cells, per channel; 0 = not at all.
    """

    def __init__(self, holds: Sequence[int]) -> None:
        self._holds = np.array(holds, np.int64)
        self._longest = int(self._holds.max())
        self._index = np.full(len(holds), NEVER, np.int64)
        self._value = np.zeros(len(holds), np.float32)

    def fill(self, cells: Cells, begin: int, end: int) -> Cells:
        """``cells`` with held values, and the cells that consist of held values alone.

        Args:
            cells: the cells with readings among ``begin`` … ``end - 1``, all of which close now.
            begin: first cell that closes.
            end: after the last.
        """
        if not self._longest:
            return cells
        index = self._candidates(cells.index, begin, end)
        if not len(index):
            return Cells.empty(len(self._holds))
        observed = np.zeros((len(index), len(self._holds)), np.bool_)
        values = np.zeros(observed.shape, np.float32)
        at = np.searchsorted(index, cells.index)
        observed[at], values[at] = cells.observed > 0, cells.values
        values = forward_fill(values, observed, self._value)
        own = np.broadcast_to(index[:, None], observed.shape)
        since = forward_fill(own, observed, self._index)
        self._index, self._value = since[-1].copy(), values[-1].copy()
        held = index[:, None] - since <= self._holds
        kept = held.any(axis=1)
        values = np.where(held, values, np.float32(0))
        return Cells(index[kept], values[kept], held[kept].astype(np.float32))

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """Copies of the held values and of the cells they are from."""
        return {"held_index": self._index.copy(), "held_value": self._value.copy()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Hold the values of a snapshot."""
        self._index = state["held_index"].copy()
        self._value = state["held_value"].copy()

    def _candidates(self, index: IndexArray, begin: int, end: int) -> IndexArray:
        """``index`` and, up to ``end``, as many cells after each as the longest hold."""
        last = int(self._index.max())
        # Where nothing was held yet, `last` is so far back that no cell comes of it.
        starts = np.concatenate([[last], index]) + 1
        stops = np.minimum(np.concatenate([index, [end]]), starts + self._longest)
        starts[0] = max(starts[0], begin)
        counts = np.maximum(stops - starts, 0)
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        between = np.repeat(starts, counts) + offsets
        return np.sort(np.concatenate([index, between]))
