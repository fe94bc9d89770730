"""The tail of a model file: the calibration of its own scores.

Calibration scores come from cross-fitting: each block of the history was scored by a net that had
not seen it, and no such net is exported. What a file changes about scores is therefore measured on
windows that both the shipped detector and the file have scored, normal and distorted ones, and
applied to the calibration scores before the tail is fitted anew.

The change is taken as the monotone map that carries one distribution of scores to the other
(quantile to quantile): it includes a bias, a gain, a ceiling and the spread that quantization adds,
and it is the identity for a file that computes the same. Beyond the largest score it goes on in
parallel to the identity.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from edge_tsad.runtime.threshold import Tail
from edge_tsad.types import FloatArray

__all__ = ["ScoreMap", "mapped_tail"]

LEVELS = 4097


class ScoreMap:
    """Scores of the detector as a file would have given them; monotone.

    Args:
        detector: f32[n], scores in torch.
        file: f32[n], the file's scores of the same points, finite.
    """

    def __init__(self, detector: FloatArray, file: FloatArray) -> None:
        levels = np.linspace(0, 1, min(LEVELS, detector.size))
        x = np.quantile(detector.astype(np.float64), levels)
        y = np.quantile(file.astype(np.float64), levels)
        # Equal scores (of masked points, say) are one knot, at the middle of where they went.
        self._x, first, count = np.unique(x, return_index=True, return_counts=True)
        self._y = np.add.reduceat(y, first) / count

    def __call__(self, score: FloatArray) -> FloatArray:
        """f32 of any shape; NaN stays NaN."""
        x, y = self._x, self._y
        mapped = np.interp(score, x, y)
        mapped = np.where(score > x[-1], score + (y[-1] - x[-1]), mapped)
        mapped = np.where(score < x[0], score + (y[0] - x[0]), mapped)
        scores: FloatArray = np.maximum(mapped, 0).astype(np.float32)
        return scores


def mapped_tail(tail: Tail, change: ScoreMap) -> Tail:
    """The tail of a file where only the float file's ``tail`` is known, not the scores behind it.

    A monotone map carries thresholds to thresholds: an alert that opened at x opens at its image.
    The fitted scale is stretched as much as the span from the level to the highest peak is.
    """

    def of(score: float) -> float:
        return float(change(np.array([score], np.float32))[0])

    median, level = of(tail.median), of(tail.level)
    far = max(tail.highest, tail.level + tail.scale)
    stretch = max((of(far) - level) / (far - tail.level), 1e-3)
    peaks = np.maximum.accumulate([max(of(peak), level) for peak in tail.peaks][::-1])[::-1]
    return dataclasses.replace(
        tail,
        median=median,
        level=max(level, median),
        scale=tail.scale * stretch,
        peaks=tuple(float(peak) for peak in peaks),
        draws=tuple((rate, shape, scale * stretch) for rate, shape, scale in tail.draws),
    )
