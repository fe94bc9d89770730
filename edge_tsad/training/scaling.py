"""The range of each channel of a history, which detectors scale by inside their graphs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_tsad.training.series import Segment
from edge_tsad.types import FloatArray

__all__ = ["Scale", "history_scale"]

BULK = (0.002, 0.998)
OUTLIER_FACTOR = 3.0
"""Where the extremes span more than this many times the bulk's range, the bulk is the range: one
spike in the history must not press everything else into a corner."""

PRECISION = 1e-6
"""A range below this share of the level is rounding of float32, not a signal."""

CONSTANT_RANGE = 0.01
"""Share of its level that counts as the range of a constant channel, ``PRECISION`` at level 0."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The range of each channel: its middle ``offset`` f32[C], its width ``scale`` f32[C] > 0.

    Both are in engineering units.
    """

    offset: FloatArray
    scale: FloatArray


def history_scale(segments: list[Segment]) -> Scale:
    """Minimum and maximum of what was observed, or of its bulk (see ``OUTLIER_FACTOR``)."""
    values = np.concatenate([part.values for part in segments])
    observed = np.concatenate([part.observed for part in segments]) > 0
    ranges = [
        _range(column[known].astype(np.float64))
        for column, known in zip(values.T, observed.T, strict=True)
    ]
    low, high = np.array(ranges).T
    return Scale(((low + high) / 2).astype(np.float32), (high - low).astype(np.float32))


def _range(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    if not len(values):
        return -PRECISION, PRECISION
    low, high = float(values.min()), float(values.max())
    inner_low, inner_high = np.quantile(values, BULK)
    if 0 < OUTLIER_FACTOR * (inner_high - inner_low) < high - low:
        low, high = float(inner_low), float(inner_high)
    level = max(abs(low), abs(high))
    if high - low <= PRECISION * level or high == low:
        half = max(CONSTANT_RANGE * level, PRECISION) / 2
        middle = (low + high) / 2
        return middle - half, middle + half
    return low, high
