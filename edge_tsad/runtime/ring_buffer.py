"""The newest points of a stream, any run of them as one contiguous view."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided

from edge_tsad.errors import DataError
from edge_tsad.types import FloatArray

__all__ = ["RingBuffer"]


class RingBuffer:
    """The last ``capacity`` points of ``C`` channels and their masks.

    Every point is stored twice, ``capacity`` rows apart, so that each run of at most ``capacity``
    points lies in one piece somewhere and `view` never copies.
    """

    def __init__(self, capacity: int, channels: int) -> None:
        if capacity < 1 or channels < 1:
            raise ValueError(f"a ring buffer of {capacity} points of {channels} channels")
        self._capacity = capacity
        self._values = np.zeros((2 * capacity, channels), np.float32)
        self._observed = np.zeros_like(self._values)
        self._written = 0

    @property
    def capacity(self) -> int:
        """Points it can hold."""
        return self._capacity

    def __len__(self) -> int:
        return min(self._written, self._capacity)

    def extend(self, values: FloatArray, observed: FloatArray) -> None:
        """Append points, the oldest falling out.

        Args:
            values: f32[n, C], any n.
            observed: f32[n, C].
        """
        skipped = max(0, len(values) - self._capacity)
        self._written += skipped
        at = self._written % self._capacity
        self._store(self._values, at, values[skipped:])
        self._store(self._observed, at, observed[skipped:])
        self._written += len(values) - skipped

    def view(self, length: int, back: int = 0) -> tuple[FloatArray, FloatArray]:
        """``values`` and ``observed`` f32[length, C] of a run that ends ``back`` before the newest.

        Both are read-only views without a copy, valid until the next `extend`, `clear` or
        `restore`.

        Raises:
            IndexError: the run reaches beyond the points held.
        """
        if length < 0 or back < 0 or length + back > len(self):
            raise IndexError(f"{length} points ending {back} back of {len(self)} held")
        stop = (self._written - back - 1) % self._capacity + self._capacity + 1
        values = self._values[stop - length : stop]
        observed = self._observed[stop - length : stop]
        values.flags.writeable = False
        observed.flags.writeable = False
        return values, observed

    def windows(
        self, count: int, length: int, hop: int, back: int = 0
    ) -> tuple[FloatArray, FloatArray]:
        """``count`` runs as in `view`, each ``hop`` points after the one before it.

        Returns:
            ``values`` and ``observed`` f32[count, length, C], read-only views that overlap one
            another; the last run ends ``back`` before the newest point.

        Raises:
            IndexError: the runs reach beyond the points held.
        """
        values, observed = self.view(length + (count - 1) * hop, back)
        if count == 1:
            return values[None], observed[None]
        row, column = values.strides
        shape, strides = (count, length, values.shape[1]), (hop * row, row, column)
        return (
            as_strided(values, shape, strides, writeable=False),
            as_strided(observed, shape, strides, writeable=False),
        )

    def clear(self) -> None:
        """Forget every point."""
        self._written = 0

    def snapshot(self, length: int | None = None) -> dict[str, FloatArray]:
        """Copies of the newest ``length`` points, all when None: what `restore` takes.

        Returns:
            ``values`` and ``observed`` f32[n, C].
        """
        points = len(self) if length is None else min(length, len(self))
        values, observed = self.view(points)
        return {"values": values.copy(), "observed": observed.copy()}

    def restore(self, state: dict[str, FloatArray]) -> None:
        """Hold the points of a snapshot and nothing else.

        Raises:
            DataError: the snapshot has other channels.
        """
        values, observed = state["values"], state["observed"]
        channels = self._values.shape[1]
        if values.shape[1:] != (channels,) or values.shape != observed.shape:
            raise DataError(
                f"saved points of shape {values.shape} do not fit {channels} channel(s);"
                " remove the saved state to start afresh"
            )
        self.clear()
        self.extend(values, observed)

    def _store(self, target: FloatArray, at: int, rows: FloatArray) -> None:
        first = min(len(rows), self._capacity - at)
        rest = len(rows) - first
        for start in (at, at + self._capacity):
            target[start : start + first] = rows[:first]
        if rest:
            for start in (0, self._capacity):
                target[start : start + rest] = rows[first:]
