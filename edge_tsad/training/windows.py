"""Windows of a history: drawn at random for fitting, evenly spread for checks; and leaving out."""

from __future__ import annotations

import numpy as np

from edge_tsad.errors import DataError
from edge_tsad.training.series import Segment, Series
from edge_tsad.types import FloatArray, IndexArray

__all__ = ["WindowSampler", "drop_out", "segments_to_fit"]

DROP_CHANCE = 0.5
"""Share of the windows that lose something; with a quarter, gaps still raised scores."""

PARTLY_LOST = 0.5
"""Share of the lost channels that fall silent or come back within the window."""

MOST_POINTS = 0.3
MOST_STRETCH = 0.25
"""Bounds of the share of single points, and of one stretch, that is left out of a window."""


class WindowSampler:
    """All windows of ``window`` points in ``segments``; at least one segment is long enough."""

    def __init__(self, segments: list[Segment], window: int) -> None:
        self._window = window
        self._segments = [part for part in segments if len(part) >= window]
        counts = [len(part) - window + 1 for part in self._segments]
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def draw(self, count: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """``count`` windows at random offsets: values and observed, f32[count, T, C] each."""
        return self._at(rng.integers(len(self), size=count))

    def spread(self, count: int) -> tuple[FloatArray, FloatArray]:
        """At most ``count`` windows at even distances, the first and the last among them."""
        return self._at(np.unique(np.linspace(0, len(self) - 1, count).astype(np.int64)))

    def extremes(self, most: int) -> tuple[FloatArray, FloatArray]:
        """Windows with the least and the greatest measured value of each channel, at most ``most``.

        Evenly spread over the channels where there are more.
        """
        starts = np.cumsum([0, *(len(part) - self._window + 1 for part in self._segments)])
        found: list[int] = []
        for channel in range(self._segments[0].values.shape[1]):
            for largest in (True, False):
                best = [self._extreme(part, channel, largest) for part in self._segments]
                which = max(range(len(best)), key=lambda i: best[i][0])
                part = self._segments[which]
                inside = min(max(best[which][1] - self._window // 2, 0), len(part) - self._window)
                found.append(int(starts[which]) + inside)
        chosen = np.unique(found)
        spread = np.linspace(0, len(chosen) - 1, min(most, len(chosen))).astype(np.int64)
        return self._at(chosen[np.unique(spread)])

    @staticmethod
    def _extreme(part: Segment, channel: int, largest: bool) -> tuple[float, int]:
        """The greatest value, or the least one negated, of what was observed, and where it is."""
        sign = 1 if largest else -1
        known = np.where(part.observed[:, channel] > 0, sign * part.values[:, channel], -np.inf)
        return float(known.max()), int(known.argmax())

    def _at(self, positions: IndexArray) -> tuple[FloatArray, FloatArray]:
        values, observed = [], []
        for position in positions:
            which = int(np.searchsorted(self._ends, position, side="right"))
            segment = self._segments[which]
            start = int(position - self._ends[which]) + len(segment) - self._window + 1
            values.append(segment.values[start : start + self._window])
            observed.append(segment.observed[start : start + self._window])
        return np.stack(values), np.stack(observed)


def segments_to_fit(history: Series, window: int) -> list[Segment]:
    """The stretches of ``history`` that hold a window.

    Raises:
        DataError: there is none.
    """
    segments = [part for part in history.segments(window) if len(part) >= window]
    if not segments:
        raise DataError(
            f"{history.name}: no stretch of {window} points without a long gap to fit on; "
            "give a longer history or a shorter window"
        )
    return segments


def drop_out(shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    """f32[B, T, C] of ones with zeros where points are left out.

    From half of the windows: single points, a stretch of all channels, or (of several) some
    channels but never all of them, for the whole window or a part of it.
    """
    kept = np.ones(shape, np.float32)
    count, length, channels = shape
    for row in np.flatnonzero(rng.random(count) < DROP_CHANCE):
        kind = rng.integers(3 if channels > 1 else 2)
        if kind == 0:
            kept[row][rng.random((length, channels)) < rng.uniform(0, MOST_POINTS)] = 0
        elif kind == 1:
            span = int(rng.integers(1, max(2, int(MOST_STRETCH * length))))
            start = int(rng.integers(length - span + 1))
            kept[row, start : start + span] = 0
        else:
            lost = rng.permutation(channels)[: rng.integers(1, channels)]
            begin, end = 0, length
            if rng.random() < PARTLY_LOST:
                begin, end = np.sort(rng.integers(0, length + 1, 2))
            kept[row, begin:end, lost] = 0
    return kept
