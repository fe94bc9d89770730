"""The tail of a model file: the calibration of its own scores.

Calibration scores come from cross-fitting: each block of the history was scored by a net that had
not seen it, and no such net is exported. What a file changes about scores is therefore measured on
windows that both the shipped detector and the file have scored, normal and distorted ones, and
applied to the calibration scores before the tail is fitted anew.

The change is taken as what the file gives on average where the detector gives a score: a monotone
map through a few means. It holds a bias, a gain and a ceiling, and is the identity for a file that
computes the same. Beyond the largest score it goes on in parallel to the identity. It is coarse on
purpose: a map from quantile to quantile followed each error of a few high scores, the fit of the
tail enlarged that, and thresholds of static int8 files moved by .02 units where scores did by .01.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from edge_tsad.runtime.threshold import Tail
from edge_tsad.types import FloatArray

__all__ = ["ScoreMap", "mapped_tail"]

MEANS = 9


class ScoreMap:
    """Scores of the detector as a file would have given them; monotone.

    Args:
        detector: f32[n], scores in torch.
        file: f32[n], the file's scores of the same points, finite.
    """

    def __init__(self, detector: FloatArray, file: FloatArray) -> None:
        order = np.argsort(detector, kind="stable")
        parts = np.array_split(order, min(MEANS, len(order)))
        x = np.array([detector[part].mean(dtype=np.float64) for part in parts])
        y = np.array([file[part].mean(dtype=np.float64) for part in parts])
        # Equal scores (of masked points, say) are one knot, at the middle of where they went.
        x, first, count = np.unique(x, return_index=True, return_counts=True)
        y = np.maximum.accumulate(np.add.reduceat(y, first) / count)
        if len(x) > 1:
            ends = np.array([detector.min(), detector.max()], np.float64)
            slopes = np.diff(y)[[0, -1]] / np.diff(x)[[0, -1]]
            low, high = y[[0, -1]] + slopes * (ends - x[[0, -1]])
            x, y = np.array([ends[0], *x, ends[1]]), np.array([low, *y, high])
        self._x, self._y = x, y

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
