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
from joblib import Parallel, delayed, parallel_config

from edge_tsad.detectors.base import Detector
from edge_tsad.errors import DataError
from edge_tsad.runtime.scorer import StreamScorer
from edge_tsad.training.series import Series
from edge_tsad.training.suspicious import HeldOut
from edge_tsad.training.tail import fit_tail
from edge_tsad.training.threads import one_thread
from edge_tsad.training.torch_backend import TorchBackend
from edge_tsad.types import IndexArray, Scores, Timing

__all__ = ["CrossFit", "Fold", "fit_tail", "folds", "lacking", "score_history"]

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


def score_history(detector: Detector, timing: Timing, history: Series) -> Scores:
    """The history through the code that runs on the gateway, with the detector in torch."""
    scorer = StreamScorer(timing, len(history.channels), TorchBackend(detector))
    return scorer.extend(history.cells())


@dataclass(frozen=True)
class CrossFit:
    """Calibration scores of a history, in other processes while the shipped detector is fitted.

    Attributes:
        history: normal operation; values that are missing stay so.
        timing: of the shipped detector.
        fit_part: fits a detector to a history in which the held-out and purged values are missing.
        blocks: K.
    """

    history: Series
    timing: Timing
    fit_part: Callable[[Series], Detector]
    blocks: int = 5

    def start(self, processes: int = 1) -> Callable[[Detector], list[HeldOut]]:
        """Begin in that many ``processes``; with one, all is done when the result is asked for.

        Returns:
            Takes the shipped detector, fitted to all, and gives the scores of K blocks, NaN where
            none was given; of one block, scored by the shipped detector, where the history is
            too short or a part of it cannot be fitted to: :func:`fit_tail` takes a single block for
            what it is and never calls it calibrated.
        """
        cut = folds(np.unique(self._rows), self.blocks, self.timing.window)
        with parallel_config(backend="loky", inner_max_num_threads=1):
            started = Parallel(n_jobs=max(1, min(processes, len(cut))), return_as="generator")(
                delayed(self._score)(fold) for fold in cut
            )

        def result(shipped: Detector) -> list[HeldOut]:
            try:
                scored = list(started)
            except DataError:  # what is left of a gappy history may be constant or without a window
                scored = []
            if scored:
                return scored
            scores = score_history(shipped, self.timing, self.history)
            return [HeldOut(scores.index, scores.score)]

        return result

    @property
    def _rows(self) -> IndexArray:
        return self.timing.index(self.history.times_ns)

    @one_thread()
    def _score(self, fold: Fold) -> HeldOut:
        """The scores of the held-out points of ``fold``, by a detector that never saw them."""
        rows = self._rows
        grid = np.unique(rows)
        first, last = grid[fold.primed][[0, -1]]
        begin, end = int(np.searchsorted(rows, first)), int(np.searchsorted(rows, last, "right"))
        values = self.history.values.copy()
        values[begin:end] = np.nan
        detector = self.fit_part(dataclasses.replace(self.history, values=values))
        scores = score_history(detector, self.timing, self.history.part(begin, end))
        first, last = grid[fold.held_out][[0, -1]]
        inside = (scores.index >= first) & (scores.index <= last)
        return HeldOut(scores.index[inside], scores.score[inside])
