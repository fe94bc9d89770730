"""How good scores are against labels, without choosing a threshold.

Scores are float64[n], higher = more anomalous, finite; labels are 0/1 arrays [n]. Positions are
0-based and regions half-open, ``[begin, end)``.

References:
    VUS: Boniol, Paparrizos et al., "Volume Under the Surface: new accuracy measures for abnormal
    subsequences detection in time series", VLDB 2022 and VLDBJ 2025. Parameters (250 thresholds at
    equidistant ranks, one slope per window 0…W) and conventions are those of the evaluation code of
    TSB-AD 1.5 (Liu and Paparrizos, NeurIPS 2024), so that its published figures are comparable.
    UCR score: Wu and Keogh, "Current Time Series Anomaly Detection Benchmarks are Flawed and are
    Creating the Illusion of Progress", TKDE 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from edge_tsad.errors import DataError
from edge_tsad.types import IndexArray

__all__ = [
    "THRESHOLDS",
    "auc_pr",
    "best_f1",
    "evaluation_window",
    "is_hit",
    "regions_of",
    "top_peaks",
    "vus_pr",
]

THRESHOLDS = 250
_DEFAULT_WINDOW = 125
_LONGEST_LAG = 400
_WINDOW_SAMPLE = 20_000

Float64 = npt.NDArray[np.float64]


def regions_of(labels: npt.ArrayLike) -> IndexArray:
    """The half-open runs of ones in ``labels`` [n], as i64[r, 2]."""
    edges = np.diff(np.concatenate(([0], (np.asarray(labels) > 0).astype(np.int8), [0])))
    return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)], axis=1)


def _checked(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], Float64]:
    truth = np.asarray(labels) > 0
    values = np.asarray(scores, np.float64)
    if truth.shape != values.shape or truth.ndim != 1:
        raise DataError(
            f"labels: {truth.shape} labels do not fit {values.shape} scores; one for each point"
        )
    if not truth.any() or truth.all():
        word = "nothing" if not truth.any() else "everything"
        raise DataError(f"labels: {word} is anomalous, so scores cannot be told right from wrong")
    if not np.isfinite(values).all():
        raise DataError("scores: some are not finite; replace them before they are measured")
    return truth, values


def _sorted_counts(truth: npt.NDArray[np.bool_], values: Float64) -> tuple[IndexArray, IndexArray]:
    """True positives and alarms at each distinct threshold, from the highest down."""
    order = np.argsort(-values, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)
    return np.cumsum(truth[order])[last_of_tie], last_of_tie + 1


def auc_pr(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Average precision, Σ (Rᵢ − Rᵢ₋₁) Pᵢ over the distinct thresholds.

    Raises:
        DataError: lengths differ, a score is not finite, or nothing or everything is anomalous.
    """
    truth, values = _checked(labels, scores)
    hits, alarms = _sorted_counts(truth, values)
    gains = np.diff(hits, prepend=0) / hits[-1]
    return float(np.sum(gains * hits / alarms))


def best_f1(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Point-wise F1 at the best of all thresholds: an oracle's, never a shipped detector's.

    Raises:
        DataError: as ``auc_pr``.
    """
    truth, values = _checked(labels, scores)
    hits, alarms = _sorted_counts(truth, values)
    return float(np.max(2 * hits / (alarms + hits[-1])))


def evaluation_window(values: npt.ArrayLike) -> int:
    """Points of the VUS window for one channel [n]: the lag of the highest autocorrelation peak.

    The rule of TSB-AD 1.5: the first 20,000 points, lags 3 to 400, local maxima only; 125 where
    there is none or where it lies more than 300 lags beyond the first. (A series of at most 400
    points, which that code refuses, is searched up to its own length.)
    """
    data = np.asarray(values, np.float64).ravel()[:_WINDOW_SAMPLE]
    lags = min(_LONGEST_LAG, len(data) - 1)
    if lags < 5 or np.ptp(data) == 0:
        return _DEFAULT_WINDOW
    centred = data - data.mean()
    spectrum = np.fft.rfft(centred, 1 << (2 * len(data)).bit_length())
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[3 : lags + 1]
    inner = correlation[1:-1]
    maxima = 1 + np.flatnonzero((inner > correlation[:-2]) & (inner > correlation[2:]))
    if not len(maxima):
        return _DEFAULT_WINDOW
    best = int(maxima[np.argmax(correlation[maxima])])
    return best + 3 if 3 <= best <= 300 else _DEFAULT_WINDOW


def vus_pr(
    labels: npt.ArrayLike, scores: npt.ArrayLike, window: int, thresholds: int = THRESHOLDS
) -> float:
    """Volume under the precision-recall surface over slope widths 0…``window`` points.

    A point's label grows from 0 to 1 towards a region over half the width w with √(1 − d/w) at
    distance d; recall is weighted by the share of regions touched. At each threshold the slope
    counts only where it was alarmed, so a point's part is fixed by the first threshold that it
    reaches and the whole curve is one cumulative sum per width.

    Raises:
        DataError: as ``auc_pr``.
    """
    truth, values = _checked(labels, scores)
    ranks = np.linspace(0, len(values) - 1, thresholds).astype(np.int64)
    levels = -np.sort(-values)[ranks]
    reached = np.searchsorted(-levels, -values, side="left")
    ranked = _Ranked(truth, regions_of(truth), reached, thresholds)
    return float(np.mean([_area(ranked, width) for width in range(window + 1)]))


@dataclass(frozen=True)
class _Ranked:
    """Labels, their regions, and the first threshold (0 = highest) that each point reaches."""

    truth: npt.NDArray[np.bool_]
    regions: IndexArray
    reached: IndexArray
    thresholds: int

    def running(self, reached: IndexArray, weights: Float64 | None = None) -> Float64:
        """Sum of ``weights`` (1 each) over the points alarmed at each threshold."""
        return np.cumsum(np.bincount(reached, weights, self.thresholds).astype(np.float64))

    @cached_property
    def alarms(self) -> Float64:
        return self.running(self.reached)

    @cached_property
    def core(self) -> Float64:
        return self.running(self.reached[self.truth])


def _area(ranked: _Ranked, width: int) -> float:
    """Area under the precision-recall curve for one slope width."""
    position, weight = _slopes(ranked.truth, ranked.regions, width)
    slope = ranked.running(ranked.reached[position], weight)
    found = ranked.core + slope
    expected = ranked.truth.sum() + slope / 2
    recall = np.minimum(found / expected, 1) * _touched(ranked, width)
    return float(np.dot(np.diff(recall, prepend=0.0), found / ranked.alarms))


def _slopes(
    truth: npt.NDArray[np.bool_], regions: IndexArray, width: int
) -> tuple[IndexArray, Float64]:
    """Unlabelled positions on the slopes of ``width`` and their weights; overlaps add up to 1."""
    away = np.arange(1, width // 2 + 1)
    before, after = regions[:, :1] - away, regions[:, 1:] - 1 + away
    position = np.concatenate([before.ravel(), after.ravel()])
    height = np.sqrt(1 - away / max(width, 1))
    weight = np.tile(height, 2 * len(regions))
    inside = (position >= 0) & (position < len(truth))
    position, weight = position[inside], weight[inside]
    unlabelled = ~truth[position]
    position, owner = np.unique(position[unlabelled], return_inverse=True)
    total = np.bincount(owner, weights=weight[unlabelled], minlength=len(position))
    return position.astype(np.int64), np.minimum(total, 1.0)


def _touched(ranked: _Ranked, width: int) -> Float64:
    """Share of the widened regions with an alarm, per threshold; those that meet count as one."""
    half = width // 2
    begin, last = ranked.regions[:, 0], ranked.regions[:, 1] - 1
    apart = np.flatnonzero(last[:-1] + half < begin[1:] - half)
    begins = np.maximum(begin[np.concatenate(([0], apart + 1))] - half, 0)
    length = len(ranked.reached)
    ends = np.minimum(last[np.append(apart, len(last) - 1)] + half + 1, length)
    # reduceat over begin, end, begin, … yields the minimum of each region at the even places.
    bounds = np.stack([begins, ends], axis=1).ravel()
    first = np.minimum.reduceat(np.append(ranked.reached, ranked.thresholds), bounds)[::2]
    return ranked.running(first) / len(begins)


def top_peaks(scores: npt.ArrayLike, count: int, apart: int) -> list[int]:
    """Positions of the ``count`` highest local maxima at least ``apart`` points from one another.

    The first is the global maximum, ties go to the earliest; of a plateau its first point counts.
    """
    values = np.asarray(scores, np.float64)
    starts = np.concatenate(([0], 1 + np.flatnonzero(np.diff(values))))
    levels = np.concatenate(([-np.inf], values[starts], [-np.inf]))
    maxima = starts[(levels[1:-1] > levels[:-2]) & (levels[1:-1] > levels[2:])]
    chosen: list[int] = []
    for position in maxima[np.argsort(-values[maxima], kind="stable")]:
        if len(chosen) == count:
            break
        if all(abs(int(position) - other) >= apart for other in chosen):
            chosen.append(int(position))
    return chosen


def is_hit(position: int, regions: npt.ArrayLike, *, loose: bool = False) -> bool:
    """Whether ``position`` lies within 100 points of one of ``regions`` i64[r, 2].

    ``loose`` allows max(100, length of the region) points instead, the rule of some papers.
    """
    for begin, end in np.asarray(regions, np.int64).reshape(-1, 2):
        slack = max(100, end - begin) if loose else 100
        if begin - slack <= position <= end - 1 + slack:
            return True
    return False
