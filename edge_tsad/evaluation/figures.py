"""The figures of one candidate on one series: a flat record that goes into the results as it is."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_tsad.evaluation.candidates import Alarm, Candidate, Fitted
from edge_tsad.evaluation.labelled import LabelledSeries
from edge_tsad.evaluation.metrics import (
    auc_pr,
    best_f1,
    evaluation_window,
    is_hit,
    regions_of,
    top_peaks,
    vus_pr,
)
from edge_tsad.evaluation.protocol import (
    Scored,
    history_of,
    kept_rows,
    run_candidate,
    warmup_points,
)
from edge_tsad.runtime.openings import openings
from edge_tsad.types import IndexArray

__all__ = ["ACCURACY", "FLOORS", "PER_POINTS", "Trial", "measure", "missed", "names_of"]

PER_POINTS = 10_000
"""Alert openings are stated per this many points."""

ACCURACY = ("acc1", "acc3", "acc5", "acc1_loose", "acc3_loose", "acc5_loose")
RANKING = ("vus_pr", "auc_pr", "best_f1")
FLOORS = {name: f"{name}_floor" for name in (*ACCURACY[:3], *RANKING)}
"""A figure and the name of what a random score gets for it."""

_PEAKS = (1, 3, 5)
_SLACK = 100
_DRAWS = 3

Float64 = npt.NDArray[np.float64]
Record = dict[str, Any]


class Trial:
    """The test part of a series: which rows count, their labels, and what chance would get.

    ``spans`` i64[R, 2] are its anomalies as half-open intervals of grid cells: rows of two
    recordings are neighbours in the arrays and far apart on the grid. ``counted`` are those of
    which any row counts.
    """

    def __init__(self, series: LabelledSeries) -> None:
        self.series = series
        history = history_of(series)
        self.warmup = warmup_points(history)
        self.kept = kept_rows(series, self.warmup)
        self.index = series.index[series.train_end :]
        self.labels = series.labels[series.train_end :]
        rows = regions_of(self.labels)
        self.spans = np.column_stack([self.index[rows[:, 0]], self.index[rows[:, 1] - 1] + 1])
        self.counted = np.array([self.kept[begin:end].any() for begin, end in rows], bool)
        self.window = evaluation_window(_complete(history.values[:, 0]))

    @property
    def reason(self) -> str:
        """Why accuracy cannot be measured here; empty where it can."""
        labels = self.labels[self.kept]
        if not len(labels):
            return "its test part is shorter than the warm-up"
        if not labels.any():
            return "nothing in its test part is anomalous"
        return "everything in its test part is anomalous" if labels.all() else ""

    @property
    def normal(self) -> bool:
        """Whether there is nothing to find: only the alarms can be judged."""
        return bool(self.kept.any()) and not self.labels[self.kept].any()

    def near(self, margin: int) -> npt.NDArray[np.bool_]:
        """Test rows within ``margin`` points of an anomaly."""
        edges = np.zeros(len(self.labels) + 1, np.int64)
        np.add.at(edges, np.searchsorted(self.index, self.spans[:, 0] - margin), 1)
        np.add.at(edges, np.searchsorted(self.index, self.spans[:, 1] + margin), -1)
        return np.cumsum(edges[:-1]) > 0

    def accuracy(self, score: Float64) -> Record:
        """UCR, VUS-PR (test part only), AUC-PR and best F1 of scores [n], NaN where none."""
        kept, labels = filled(score[self.kept]), self.labels[self.kept]
        rows, spans = np.flatnonzero(self.kept), self.spans[self.counted]
        peaks = [int(rows[peak]) for peak in top_peaks(kept, max(_PEAKS), self.window)]
        record: Record = {"peak": peaks[0] + self.series.train_end}
        for count in _PEAKS:
            first = [int(self.index[peak]) for peak in peaks[:count]]
            record[f"acc{count}"] = int(any(is_hit(p, spans) for p in first))
            record[f"acc{count}_loose"] = int(any(is_hit(p, spans, loose=True) for p in first))
        return record | self._ranking(labels, kept)

    def _ranking(self, labels: npt.NDArray[np.uint8], kept: Float64) -> Record:
        return {
            "vus_pr": vus_pr(labels, kept, self.window),
            "auc_pr": auc_pr(labels, kept),
            "best_f1": best_f1(labels, kept),
        }

    @functools.cached_property
    def floors(self) -> Record:
        """What a random score is expected to get; chance of Acc@k as if peaks were independent."""
        labels = self.labels[self.kept]
        generator = np.random.default_rng(0)
        draws = [self._ranking(labels, generator.random(len(labels))) for _ in range(_DRAWS)]
        share = float(np.mean(self.near(_SLACK)[self.kept]))
        chance = {f"acc{count}_floor": 1 - (1 - share) ** count for count in _PEAKS}
        means = {f"{key}_floor": float(np.mean([d[key] for d in draws])) for key in RANKING}
        return chance | means


def filled(score: Float64) -> Float64:
    """Scores with the lowest of them where none was given."""
    return np.where(np.isnan(score), np.nanmin(score), score)


def _complete(column: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The channel without its missing points; their place hardly moves a period."""
    return np.asarray(column[np.isfinite(column)])


def measure(
    candidate: Candidate,
    series: LabelledSeries,
    seed: int,
    *,
    timeout_s: float = 0.0,
    board: bool = False,
) -> Record:
    """All figures of ``candidate`` on ``series``.

    ``status`` is ``ok``, ``miss`` (accuracy figures are 0), ``normal`` (nothing to find: alarm
    figures only) or ``left out``; ``reason`` explains the last three.
    """
    trial = Trial(series)
    if trial.reason and not trial.normal:
        return _header(candidate, trial, seed) | {"status": "left out", "reason": trial.reason}
    scored = run_candidate(candidate, series, seed, timeout_s=timeout_s, board=board)
    if not scored.miss and np.isnan(scored.score[trial.kept]).all():
        scored = replace(scored, miss="no point that counts was given a score")
    record = _header(candidate, trial, seed) | _results(trial, scored)
    return _plain(record | (_board(series, scored) if board and not trial.normal else {}))


def missed(candidate: Candidate, series: LabelledSeries, seed: int, reason: str) -> Record:
    """The record of a candidate that could not even be run to its end."""
    trial, nothing = Trial(series), np.full(len(series) - series.train_end, np.nan)
    return _header(candidate, trial, seed) | _results(trial, Scored(nothing, miss=reason))


def names_of(candidate: Candidate, series: LabelledSeries) -> Record:
    """What a record is called by."""
    return {
        "series": series.name,
        "recording": series.recording or series.name,
        "half": series.half,
        "candidate": candidate.name,
    }


def _header(candidate: Candidate, trial: Trial, seed: int) -> Record:
    series = trial.series
    return names_of(candidate, series) | {
        "sees_future": candidate.sees_future,
        "seed": seed,
        "history": series.train_end,
        "points": int(trial.kept.sum()),
        "channels": series.values.shape[1],
        "history_anomalies": float(series.labels[: series.train_end].mean()),
        "warmup": 0 if series.contiguous else trial.warmup,
        "vus_window": trial.window,
    }


def _plain(record: Record) -> Record:
    """As JSON has it: no NaN, no infinity, no numpy scalars."""
    plain = {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in record.items()
    }
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in plain.items()
    }


def _results(trial: Trial, scored: Scored) -> Record:
    normal = trial.normal
    record: Record = {"status": "normal" if normal else "ok", "reason": trial.reason}
    if not normal:
        record |= trial.floors
    if scored.miss:
        void = {} if normal else dict.fromkeys((*ACCURACY, *RANKING), 0.0)
        lost = {"regions": int(trial.counted.sum()), "regions_found": 0}
        return record | void | lost | {"status": "miss", "reason": scored.miss}
    assert scored.fitted is not None
    record |= _costs(scored, scored.fitted)
    if not normal:
        record |= trial.accuracy(scored.score)
    if scored.fitted.alarm is not None:
        record |= _alarms(trial, scored, scored.fitted.alarm)
    return record


def _costs(scored: Scored, fitted: Fitted) -> Record:
    shown = len(scored.score)
    return {
        "fit_s": round(scored.fit_s, 3),
        "points_per_s": round(shown / max(scored.score_s, 1e-9)),
        "parameters": fitted.parameters,
        "window": fitted.window,
        "delay": fitted.delay,
        **fitted.facts,
    }


def _board(series: LabelledSeries, scored: Scored) -> Record:
    """VUS-PR as on the TSB-AD board: full series, window from the whole first channel."""
    if scored.whole_score is None or scored.whole_miss:
        return {"board_vus_pr": 0.0, "board_reason": scored.whole_miss}
    window = evaluation_window(_complete(series.values[:, 0]))
    return {"board_vus_pr": vus_pr(series.labels, filled(scored.whole_score), window)}


def _alarms(trial: Trial, scored: Scored, alarm: Alarm) -> Record:
    """Alert openings at the shipped threshold; hits lie within 100 points of a region.

    False ones lie further off than a window, which still shows the anomaly; those between are
    counted apart, as ``near``.
    """
    score = np.where(trial.kept, scored.score, np.nan).astype(np.float32)
    onsets = openings(score, alarm.threshold, alarm.median, alarm.policy)
    hits, wide = trial.near(_SLACK), trial.near(max(_SLACK, trial.warmup))
    counted = trial.kept & ~np.isnan(scored.score) & ~wide
    false, points = int((~wide[onsets]).sum()), int(counted.sum())
    assert scored.fitted is not None
    return {
        "calibration": alarm.state,
        "threshold": alarm.threshold,
        "openings_hit": int(hits[onsets].sum()),
        "openings_near": int((wide & ~hits)[onsets].sum()),
        "openings_false": false,
        "points_normal": points,
        "false_per_10k": false / points * PER_POINTS if points else None,
        **_promise(alarm, false, points),
        **_delays(trial, onsets, scored.fitted.delay),
    }


def _promise(alarm: Alarm, false: int, points: int) -> Record:
    """The promised rate, and whether what was counted agrees with it.

    ``inside``: the achieved rate lies in the interval of the rate. ``inside_count``: the count lies
    in that of the count, which allows for chance as well.
    """
    counts = alarm.counts(points)
    if alarm.interval is None or counts is None or not points:
        return {"promised_per_10k": None}
    (low, high), (least, most) = alarm.interval, counts
    return {
        "promised_per_10k": alarm.rate * PER_POINTS,
        "promised_low": low * PER_POINTS,
        "promised_high": high * PER_POINTS,
        "promised_least": least,
        "promised_most": most,
        "inside": int(low <= false / points <= high),
        "inside_count": int(least <= false <= most),
    }


def _delays(trial: Trial, onsets: IndexArray, delay: int) -> Record:
    """Regions with an opening, and points from their begin to the first alert, D included."""
    found: list[int] = []
    at = trial.index[onsets]
    for begin, end in trial.spans[trial.counted]:
        hits = at[(at >= begin - _SLACK) & (at < end + _SLACK)]
        if len(hits):
            found.append(max(int(hits[0]) - int(begin), 0) + delay)
    return {
        "regions": int(trial.counted.sum()),
        "regions_found": len(found),
        "detection_delay": float(np.median(found)) if found else None,
    }
