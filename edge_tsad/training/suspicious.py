"""Stretches of a history that look unlike the rest to a net that never saw them.

A history is taken for normal operation; where it holds faults, the detector learns to expect them.
The scores of the cross-fit tell where that may be so. Each block is judged by itself, for each has
a net of its own: it is cut into pieces of a period, and the greatest scores of the pieces are
compared with their quartiles (Tukey, *Exploratory Data Analysis*, 1977: "far out" is beyond three
interquartile ranges). Quartiles stand firm while less than a quarter of the pieces is at fault.
What is found is only told: what to leave out is for people to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edge_tsad.training.series import Series
from edge_tsad.training.spans import span_text
from edge_tsad.types import FloatArray, IndexArray, Timing

__all__ = ["HeldOut", "Suspect", "suspects", "suspicious_spans"]

FENCE = 3.0
"""Interquartile ranges above the upper quartile."""

LEAST_PIECES = 20
"""Pieces of a block, which are shorter than a period where it has fewer of these."""

SUSPECTS_TOLD = 20
"""Suspicious stretches that are told, the worst ones; a person has to look at each."""

FLANK = 0.5
"""A stretch reaches as far as the score stays above this share of the way to the fence."""


class HeldOut(NamedTuple):
    """Grid indices ``cells`` i64[n] of a block, and ``score`` f32[n] of a net that never saw it."""

    cells: IndexArray
    score: FloatArray


@dataclass(frozen=True, slots=True)
class Suspect:
    """Grid cells ``first`` to ``last``, both included; ``excess`` ≥ 1 is the peak over the fence.

    Both are counted from the block's median score.
    """

    first: int
    last: int
    excess: float


def suspects(blocks: Sequence[HeldOut], timing: Timing) -> list[Suspect]:
    """The stretches in the order of time; those nearer than a period to each other are one."""
    return [suspect for block in blocks for suspect in _of_block(block, timing.period)]


def suspicious_spans(
    blocks: Sequence[HeldOut], history: Series, normal: Series, timing: Timing
) -> list[str]:
    """``FROM..TO`` of the worst stretches of ``history``, by time; none from a single block.

    The edges of what ``normal`` leaves out are none: half of what surrounds them is missing.
    """
    if len(blocks) < 2:
        return []
    cells = timing.index(history.times_ns)
    left_out = cells[(np.isnan(normal.values) & ~np.isnan(history.values)).any(axis=1)]
    found = [
        one
        for one in suspects(blocks, timing)
        if not np.any(
            (left_out >= one.first - timing.period) & (left_out <= one.last + timing.period)
        )
    ]
    worst = sorted(found, key=lambda one: -one.excess)[:SUSPECTS_TOLD]
    spans = []
    for suspect in sorted(worst, key=lambda one: one.first):
        first = int(np.searchsorted(cells, suspect.first))
        last = int(np.searchsorted(cells, suspect.last, "right")) - 1
        spans.append(span_text(history, first, last))
    return spans


def _of_block(block: HeldOut, period: int) -> list[Suspect]:
    known = ~np.isnan(block.score)
    cells, score = block.cells[known], block.score[known].astype(np.float64)
    if len(score) < LEAST_PIECES:
        return []
    size = min(period, len(score) // LEAST_PIECES)
    greatest = np.maximum.reduceat(score, np.arange(0, len(score), size))
    lower, upper = np.quantile(greatest, (0.25, 0.75))
    median, fence = float(np.median(score)), float(upper + FENCE * (upper - lower))
    if fence <= median:
        return []
    flanks = _runs(np.flatnonzero(score > median + FLANK * (fence - median)), 1)
    beyond = [np.arange(a, b + 1) for a, b in flanks if score[a : b + 1].max() > fence]
    if not beyond:
        return []
    return [
        Suspect(
            int(cells[a]), int(cells[b]), float(score[a : b + 1].max() - median) / (fence - median)
        )
        for a, b in _runs(np.concatenate(beyond), period)
    ]


def _runs(places: IndexArray, distance: int) -> list[tuple[int, int]]:
    """First and last of the runs of ascending ``places`` no further apart than ``distance``."""
    breaks = np.flatnonzero(np.diff(places) > distance)
    starts = places[np.concatenate([[0], breaks + 1])] if len(places) else places
    ends = places[np.concatenate([breaks, [-1]])] if len(places) else places
    return [(int(a), int(b)) for a, b in zip(starts, ends, strict=True)]
