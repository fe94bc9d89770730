"""Arithmetic on rows of points that the resampler and the scorer share.

Everything here gives the same bits however a stream is cut into chunks: sums run in the order of
the points, and where they restart is fixed to the grid and not to the chunk.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["RowQueue", "centred_sum", "forward_fill"]

Number = TypeVar("Number", bound=np.generic)


class RowQueue(Generic[Number]):
    """Rows in the order of their grid index: appended at the end, dropped from the front.

    Args:
        columns: values per row.
        dtype: of the values.
    """

    def __init__(self, columns: int, dtype: type[Number]) -> None:
        self._rows: npt.NDArray[Number] = np.zeros((64, columns), dtype)
        self.clear(0)

    @property
    def first(self) -> int:
        """Index of the first row."""
        return self._first

    @property
    def end(self) -> int:
        """Index after the last row."""
        return self._first + self._stop - self._start

    def clear(self, first: int) -> None:
        """Drop all rows; the next one has index ``first``."""
        self._first, self._start, self._stop = first, 0, 0

    def rows(self, low: int, high: int) -> npt.NDArray[Number]:
        """Rows of the indices ``low`` … ``high - 1``; a view.

        Raises:
            IndexError: not all of them are held.
        """
        if low < self._first or high > self.end:
            raise IndexError(f"rows {low} … {high} of {self._first} … {self.end}")
        at = self._start - self._first
        return self._rows[low + at : high + at]

    def grow(self, count: int) -> npt.NDArray[Number]:
        """Append ``count`` rows of zeros and return them as a view."""
        if self._stop + count > len(self._rows):
            self._make_room(count)
        rows = self._rows[self._stop : self._stop + count]
        rows[:] = 0
        self._stop += count
        return rows

    def drop_before(self, index: int) -> None:
        """Drop the rows whose index is less than ``index``."""
        count = min(max(index - self._first, 0), self._stop - self._start)
        self._first += count
        self._start += count

    def snapshot(self) -> npt.NDArray[Number]:
        """A copy of all rows."""
        return self._rows[self._start : self._stop].copy()

    def restore(self, first: int, rows: npt.NDArray[Any]) -> None:
        """Hold ``rows``, the first of which has index ``first``."""
        self.clear(first)
        self.grow(len(rows))[:] = rows

    def _make_room(self, count: int) -> None:
        held = self._rows[self._start : self._stop]
        target = self._rows
        # Moving pays only when at least half of the room comes free; otherwise double it.
        if 2 * (len(held) + count) > len(target):
            target = np.zeros((2 * (len(held) + count), held.shape[1]), held.dtype)
        target[: len(held)] = held
        self._rows = target
        self._start, self._stop = 0, len(held)


def forward_fill(
    values: npt.NDArray[Number], present: npt.NDArray[np.bool_], before: npt.NDArray[Number]
) -> npt.NDArray[Number]:
    """``values`` [n, C] with each entry that is not ``present`` replaced by the last one that was.

    Args:
        values: [n, C].
        present: bool[n, C].
        before: [C], used until the first present entry of a channel.

    Returns:
        [n, C]; ``values`` itself where nothing is missing.
    """
    if present.all():
        return values
    rows = np.arange(1, len(values) + 1)[:, None]
    source = np.maximum.accumulate(np.where(present, rows, 0), axis=0)
    return np.take_along_axis(np.concatenate([before[None], values]), source, axis=0)


def centred_sum(
    queue: RowQueue[np.float64], low: int, high: int, span: int, columns: int
) -> npt.NDArray[np.float64]:
    """Sums over ``span`` rows centred on each of ``low`` … ``high - 1``; absent rows count as 0.

    The sums are built from prefixes and suffixes of blocks of ``span`` rows that start at multiples
    of ``span`` (van Herk 1992), so a sum never subtracts, never reaches beyond its own rows, and
    costs the same for every span.

    Args:
        queue: rows by index, to ``high - 1 + span // 2``; those before its first count as absent.
        low: first centre.
        high: after the last centre.
        span: odd.
        columns: how many leading columns are summed.

    Returns:
        f64[high - low, columns].
    """
    half = span // 2
    start = (low - half) // span * span
    blocks = -(-(high + half - start) // span)
    padded = np.zeros((blocks * span, columns))
    held = max(start, queue.first)
    padded[held - start : high + half - start] = queue.rows(held, high + half)[:, :columns]
    parts = padded.reshape(blocks, span, columns)
    prefix = np.cumsum(parts, axis=1).reshape(-1, columns)
    suffix = np.cumsum(parts[:, ::-1], axis=1)[:, ::-1].reshape(-1, columns)
    first = np.arange(low - half - start, high - half - start)
    total: npt.NDArray[np.float64] = prefix[first + 2 * half]
    straddling = first % span != 0
    total[straddling] += suffix[first[straddling]]
    return total
