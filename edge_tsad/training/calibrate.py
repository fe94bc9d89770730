"""Calibration scores by blocked cross-fitting: each stretch is judged by a net that never saw it.

The history is cut into contiguous blocks. For each, a detector is fitted to the rest, from which T
points at each side of the block are left out: a window on the block never shares a point with a
window that was fitted to. Those purged points are still fed to the scorer, so that every point of
the block gets its score. The shipped detector is fitted to all; what its stand-ins, with less
history, score worse errs towards fewer alarms.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_tsad.detectors.base import Detector
from edge_tsad.errors import DataError
from edge_tsad.runtime.scorer import StreamScorer
from edge_tsad.training.series import Series
from edge_tsad.training.tail import fit_tail
from edge_tsad.training.torch_backend import TorchBackend
from edge_tsad.types import FloatArray, IndexArray, Scores, Timing

__all__ = ["Fold", "cross_fit", "fit_tail", "folds", "lacking", "score_blocks", "score_history"]

LEAST_WINDOWS = 3
"""Windows' worth of points that must remain to fit to."""


@dataclass(frozen=True, slots=True)
class Fold:
    """One block and what is fitted without it, as slices of the history's points.

    ``held_out`` is scored; ``train`` are the stretches to fit to; ``primed`` is ``held_out`` with
    the purged points around it, which is what the scorer is fed.
    """

    train: tuple[slice, ...]
    held_out: slice
    primed: slice


def folds(index: IndexArray, blocks: int, window: int) -> list[Fold]:
    """Cut a history into folds; none where it is too short (see :func:`lacking`).

    Args:
        index: i64[n], grid indices of the points, strictly increasing.
        blocks: K, how many blocks of about equal count, at least 2.
        window: T, points of the grid to purge at each side of a block.
    """
    if lacking(len(index), blocks, window):
        return []
    cuts = [int(cut) for cut in np.linspace(0, len(index), blocks + 1)]
    return [_fold(index, begin, end, window) for begin, end in itertools.pairwise(cuts)]


def _fold(index: IndexArray, begin: int, end: int, window: int) -> Fold:
    left = int(np.searchsorted(index, index[begin] - window))
    right = int(np.searchsorted(index, index[end - 1] + window, "right"))
    rest = (slice(0, left), slice(right, len(index)))
    train = tuple(part for part in rest if part.stop - part.start >= window)
    return Fold(train, slice(begin, end), slice(left, right))


def lacking(points: int, blocks: int, window: int) -> int:
    """Points that a history of ``points`` lacks for ``blocks`` folds; 0 if it has enough.

    Each block has at least T points, and 3 T remain for each fit when block and purge are gone.
    """
    purged = 1 if blocks == 2 else 2
    rest = (LEAST_WINDOWS + purged) * window
    needed = max(blocks * window, math.ceil(rest * blocks / (blocks - 1)))
    return max(0, needed - points)


def score_blocks(cut: list[Fold], score_block: Callable[[Fold], FloatArray]) -> list[FloatArray]:
    """The scores f32 of each fold's held-out points, as ``score_block`` gives them."""
    return [score_block(fold) for fold in cut]


def score_history(detector: Detector, timing: Timing, history: Series) -> Scores:
    """The history through the code that runs on the gateway, with the detector in torch."""
    scorer = StreamScorer(timing, len(history.channels), TorchBackend(detector))
    return scorer.extend(history.cells())


def cross_fit(
    history: Series,
    timing: Timing,
    fit_part: Callable[[Series], Detector],
    *,
    blocks: int = 5,
    shipped: Detector,
) -> list[FloatArray]:
    """Calibration scores of a history.

    Args:
        history: normal operation; values that are missing stay so.
        timing: of the shipped detector.
        fit_part: fits a detector to a history in which the held-out and purged values are missing.
        blocks: K.
        shipped: the detector fitted to all.

    Returns:
        Scores f32 of K blocks, NaN where none was given; of one block, scored by ``shipped``,
        where the history is too short or a part of it cannot be fitted to: :func:`fit_tail` takes
        a single block for what it is and never calls it calibrated.
    """
    rows = timing.index(history.times_ns)
    grid = np.unique(rows)

    def score_block(fold: Fold) -> FloatArray:
        first, last = grid[fold.primed][[0, -1]]
        begin, end = int(np.searchsorted(rows, first)), int(np.searchsorted(rows, last, "right"))
        values = history.values.copy()
        values[begin:end] = np.nan
        detector = fit_part(dataclasses.replace(history, values=values))
        scores = score_history(detector, timing, history.part(begin, end))
        first, last = grid[fold.held_out][[0, -1]]
        held_out: FloatArray = scores.score[(scores.index >= first) & (scores.index <= last)]
        return held_out

    try:
        scored = score_blocks(folds(grid, blocks, timing.window), score_block)
    except DataError:  # what is left of a gappy history may be constant or without a whole window
        scored = []
    return scored or [score_history(shipped, timing, history).score]
