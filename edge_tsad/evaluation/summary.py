"""Totals over series: means with bootstrap intervals over recordings, and paired differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_tsad.evaluation.figures import FLOORS, PER_POINTS
from edge_tsad.evaluation.store import Record

__all__ = ["MEANS", "Alarms", "Estimate", "Total", "difference", "totals"]

MEANS = (
    "acc1",
    "acc3",
    "acc5",
    "acc1_loose",
    "acc3_loose",
    "acc5_loose",
    "vus_pr",
    "auc_pr",
    "best_f1",
)
UNCALIBRATED = "UNCALIBRATED"
"""The state of a threshold that promises no rate, only that some rate is not exceeded."""

_DRAWS = 2000
_SEED = 20240501

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over series and its 95 % interval, by bootstrap over recordings.

    The interval is NaN where there is one recording only: nothing is known of others then.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Alarms:
    """Openings at the shipped threshold over ``runs`` (series and seeds); rates per 10,000 points.

    ``rate`` is achieved over all runs, ``rate_stated`` over the ``stated`` ones that promise an
    interval, and ``promised`` is the rate these promise, weighted by their points. ``inside`` of
    them had their achieved rate in the interval, ``not_above`` one in it or below it, and
    ``inside_count`` a count that the interval and chance explain. An UNCALIBRATED run states a
    bound, which counts among its own kind only.
    """

    runs: int
    hit: int
    near: int
    false: int
    points: int
    rate: float
    rate_stated: float
    promised: float
    inside: int
    not_above: int
    inside_count: int
    stated: int
    regions: int
    regions_found: int
    delay: float


@dataclass(frozen=True, slots=True)
class Total:
    """One candidate over the series that have something to find, misses included as zeros.

    ``means`` holds the figures of ``MEANS``, ``floors`` what chance gets, and ``corrected`` is
    the mean of (VUS-PR − floor) / (1 − floor). ``seeds`` are the means of Acc@1 and VUS-PR of each.
    ``states`` has the alarms of each calibration state.
    """

    candidate: str
    sees_future: bool
    series: int
    misses: int
    means: Mapping[str, Estimate]
    floors: Mapping[str, float]
    corrected: Estimate
    board: Estimate | None
    seeds: Mapping[int, tuple[float, float]]
    alarms: Alarms | None
    states: Mapping[str, Alarms]
    fit_s: float
    fit_worst_s: float
    points_per_s: float
    parameters: int


def totals(records: Sequence[Record]) -> list[Total]:
    """The totals of each candidate in the order of their first record."""
    names = list(dict.fromkeys(record["candidate"] for record in records))
    return [_total([r for r in records if r["candidate"] == name]) for name in names]


def difference(records: Sequence[Record], first: str, other: str, figure: str) -> Estimate | None:
    """Mean of ``first`` − ``other`` over their common series, paired; None where none is common."""
    mine, theirs = (_per_series(_judged(records, name), figure) for name in (first, other))
    common = [name for name in mine if name in theirs]
    if not common:
        return None
    recordings = {record["series"]: record["recording"] for record in records}
    return _estimate({name: mine[name] - theirs[name] for name in common}, recordings)


def _judged(records: Iterable[Record], candidate: str) -> list[Record]:
    return [r for r in records if r["candidate"] == candidate and "acc1" in r]


def _per_series(
    records: Iterable[Record], figure: str | Callable[[Record], float]
) -> dict[str, float]:
    """Mean over seeds of each series that has the figure."""
    value = figure if callable(figure) else lambda record: record.get(figure)
    values: dict[str, list[float]] = {}
    for record in records:
        if (number := value(record)) is not None:
            values.setdefault(record["series"], []).append(number)
    return {name: float(np.mean(numbers)) for name, numbers in values.items()}


def _estimate(values: Mapping[str, float], recordings: Mapping[str, str]) -> Estimate:
    groups: dict[str, list[float]] = {}
    for name, value in values.items():
        groups.setdefault(recordings[name], []).append(value)
    sums = np.array([np.sum(group) for group in groups.values()])
    sizes = np.array([len(group) for group in groups.values()])
    if len(sums) < 2:
        return Estimate(float(sums.sum() / sizes.sum()), np.nan, np.nan)
    generator = np.random.default_rng(_SEED)
    drawn = generator.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), _DRAWS)
    low, high = np.quantile((drawn @ sums) / (drawn @ sizes), (0.025, 0.975))
    return Estimate(float(sums.sum() / sizes.sum()), float(low), float(high))


def _corrected(record: Record) -> float:
    floor = record["vus_pr_floor"]
    return float((record["vus_pr"] - floor) / (1 - floor)) if floor < 1 else 0.0


def _total(records: list[Record]) -> Total:
    judged = [record for record in records if "acc1" in record]
    recordings = {record["series"]: record["recording"] for record in records}
    nothing = Estimate(np.nan, np.nan, np.nan)

    def mean(figure: str | Callable[[Record], float]) -> Estimate:
        values = _per_series(judged, figure)
        return _estimate(values, recordings) if values else nothing

    board = mean("board_vus_pr")
    by_seed = {seed: [r for r in judged if r["seed"] == seed] for seed in _seeds(judged)}
    run = [record for record in records if "fit_s" in record]
    alarmed = [record for record in records if "openings_false" in record]
    missed = [record for record in records if record["status"] == "miss"]
    return Total(
        candidate=records[0]["candidate"],
        sees_future=records[0]["sees_future"],
        series=len({record["series"] for record in judged}),
        misses=len(missed),
        means={figure: mean(figure) for figure in MEANS},
        floors={figure: mean(floor).value for figure, floor in FLOORS.items()},
        corrected=mean(_corrected),
        board=None if np.isnan(board.value) else board,
        seeds={
            seed: (_mean(some, "acc1"), _mean(some, "vus_pr")) for seed, some in by_seed.items()
        },
        alarms=_of_all(alarmed, missed) if alarmed else None,
        states={state: _of_state(alarmed, state) for state in _states(alarmed)},
        fit_s=_median(run, "fit_s"),
        fit_worst_s=max((record["fit_s"] for record in run), default=np.nan),
        points_per_s=_median(run, "points_per_s"),
        parameters=max((record["parameters"] for record in run), default=0),
    )


def _seeds(records: list[Record]) -> list[int]:
    return sorted({record["seed"] for record in records})


def _mean(records: list[Record], figure: str) -> float:
    return float(np.mean([record[figure] for record in records]))


def _median(records: list[Record], figure: str) -> float:
    values = [record[figure] for record in records if record.get(figure) is not None]
    return float(np.median(values)) if values else np.nan


def _sum(records: list[Record], figure: str) -> Any:
    return sum(record.get(figure) or 0 for record in records)


def _states(records: list[Record]) -> list[str]:
    return sorted({record["calibration"] for record in records})


def _of_state(records: list[Record], state: str) -> Alarms:
    own = [record for record in records if record["calibration"] == state]
    return _alarms(own, [record for record in own if "inside" in record])


def _of_all(records: list[Record], missed: list[Record]) -> Alarms:
    """Of every run; a miss opened nothing and found nothing. A bound is no promise of a rate."""
    promising = [record for record in records if record["calibration"] != UNCALIBRATED]
    return _alarms([*records, *missed], [record for record in promising if "inside" in record])


def _alarms(records: list[Record], stated: list[Record]) -> Alarms:
    points, false = _sum(records, "points_normal"), _sum(records, "openings_false")
    tried = _sum(stated, "points_normal")
    promised = sum(record["points_normal"] * record["promised_per_10k"] for record in stated)
    return Alarms(
        runs=len(records),
        hit=_sum(records, "openings_hit"),
        near=_sum(records, "openings_near"),
        false=false,
        points=points,
        rate=false / points * PER_POINTS if points else np.nan,
        rate_stated=_sum(stated, "openings_false") / tried * PER_POINTS if tried else np.nan,
        promised=promised / tried if tried else np.nan,
        inside=_sum(stated, "inside"),
        not_above=sum(record["false_per_10k"] <= record["promised_high"] for record in stated),
        inside_count=_sum(stated, "inside_count"),
        stated=len(stated),
        regions=_sum(records, "regions"),
        regions_found=_sum(records, "regions_found"),
        delay=_median(records, "detection_delay"),
    )
