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

import numpy as np

from edge_tsad.runtime.threshold import Tail
from edge_tsad.training.calibrate import fit_tail
from edge_tsad.types import FloatArray, PolicySettings

__all__ = ["ScoreMap", "file_tail"]

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


def file_tail(
    calibration: list[FloatArray],
    policy: PolicySettings,
    seed: int,
    *,
    shortfall: int,
    detector: FloatArray,
    file: FloatArray,
) -> Tail:
    """The tail fitted to ``calibration`` as the file would have scored it.

    Args:
        calibration: cross-fitted scores f32[n] of the history's blocks.
        policy: how scores become alerts.
        seed: of the bootstrap.
        shortfall: points of history that were lacking for cross-fitting.
        detector: scores of some windows in torch.
        file: the file's scores of the same windows.
    """
    change = ScoreMap(detector.ravel(), file.ravel())
    blocks = [change(block) for block in calibration]
    return fit_tail(blocks, policy, seed, shortfall=shortfall)
