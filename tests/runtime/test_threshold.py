"""Budgets, the tail as JSON, and the threshold that they give."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edge_tsad.decode import canonical_json
from edge_tsad.errors import BundleError, ConfigError
from edge_tsad.runtime.threshold import Budget, Tail, Threshold
from edge_tsad.types import Timing

TIMING = Timing(step_ns=10**9, window=8, hop=1, delay=0, smoothing=1, period=4)
WITHOUT_RATE = dataclasses.replace(TIMING, has_rate=False)
POINTS = 10_000


def exponential(count: int = 100, points: int = POINTS, **changes: object) -> Tail:
    """A hundred peaks as those of an exponential tail with mean 1 above the level 2."""
    peaks = tuple(2.0 + math.log(count / (i + 0.5)) for i in range(count))
    rate = count / points
    draws = tuple((rate * (1 + 0.002 * i), 0.0, 1 + 0.001 * i) for i in range(-50, 51))
    whole = Tail(1.0, 2.0, rate, 0.0, 1.0, points, peaks, draws)
    return dataclasses.replace(whole, **changes)


TOO_LITTLE = exponential(draws=(), peaks=(5.0, 3.0, 2.5), rate=3e-4)


@pytest.mark.parametrize(
    ("text", "openings", "points"),
    [
        ("1/7d", 1, 7 * 86400),
        ("2/24h", 2, 86400),
        ("1/10000pt", 1, 10000),
        ("0.5/1w", 0.5, 604800),
        (" 3 / 90 min ", 3, 5400),
        ("1/2500ms", 1, 2.5),
    ],
)
def test_budgets_are_read(text: str, openings: float, points: float) -> None:
    budget = Budget.parse(text, TIMING)
    assert (budget.openings, budget.points) == (openings, pytest.approx(points))
    assert budget.rate == pytest.approx(openings / points)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not like 1/7d"),
        ("weekly", "'weekly' is not like"),
        ("1/7", "is not like"),
        ("1/7y", "is not like"),
        ("-1/7d", "is not like"),
        ("nan/7d", "is not like"),
        ("0/7d", "0 openings cannot be kept"),
        ("1/0d", "0 points cannot be kept"),
        ("5/2pt", "more than one per point"),
        ("9" * 400 + "/1d", "inf openings cannot be kept"),
    ],
)
def test_wrong_budgets_are_refused_in_words(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Budget.parse(text, TIMING)
    assert str(caught.value).startswith("budget: ")


def test_the_usual_budget_counts_points_where_a_week_would_be_none() -> None:
    hourly = dataclasses.replace(TIMING, step_ns=3600 * 10**9)
    assert Budget.usual(hourly) == Budget(1, 7 * 24)
    monthly = dataclasses.replace(TIMING, step_ns=30 * 86_400 * 10**9)
    without = dataclasses.replace(TIMING, has_rate=False)
    assert Budget.usual(monthly) == Budget.usual(without) == Budget(1, 10_000)


def test_a_budget_of_time_needs_a_rate() -> None:
    assert Budget.parse("1/100pt", WITHOUT_RATE).points == 100
    with pytest.raises(ConfigError, match="count points, as in 1/10000pt"):
        Budget.parse("1/7d", WITHOUT_RATE)


def test_tail_survives_json_to_the_last_bit() -> None:
    tail = exponential(dispersion=1.5, cross_fitted=False, shortfall=7)
    assert Tail.from_json(json.loads(canonical_json(tail.to_json()))) == tail


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("median", "x", "median: is 'x'"),
        ("median", math.nan, "median"),
        ("level", 0.5, "level: 0.5 is out of range"),
        ("rate", -1, "rate: -1.0 is out of range"),
        ("rate", 1e300, "finite number"),
        ("scale", 0, "scale: 0.0 is out of range"),
        ("points", 0, "points: 0 is out of range"),
        ("points", 1.5, "points: is 1.5"),
        ("peaks", [3, 4], "must descend"),
        ("peaks", [1.5], "must descend"),
        ("draws", [[1, 2]], r"draws\[0\]: has 2 entries"),
        ("draws", [[0, 0, 1]], r"draws\[0\]: rate, shape or scale"),
        ("draws", [[0.1, math.inf, 1]], r"draws\[0\]"),
        ("dispersion", 0.5, "dispersion: 0.5 is out of range"),
        ("shortfall", -1, "shortfall: -1 is out of range"),
        ("cross_fitted", 1, "cross_fitted: is 1"),
        ("extra", 1, "extra: is not a known key"),
    ],
)
def test_a_wrong_tail_is_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Tail.from_json(exponential().to_json() | {key: value})


def test_a_missing_key_of_a_tail_is_named() -> None:
    data = exponential().to_json()
    del data["rate"]
    with pytest.raises(BundleError, match="rate: is missing"):
        Tail.from_json(data)


def test_a_budget_within_the_observed_is_calibrated() -> None:
    tail = exponential()
    threshold = Threshold.from_tail(tail, Budget(1, 1000))
    assert threshold.state == "CALIBRATED"
    # 100 peaks in 10 000 points; a tenth of them remains at level + ln 10.
    assert threshold.value == pytest.approx(2 + math.log(10), rel=1e-3)
    assert threshold.rate == pytest.approx(1e-3, rel=1e-3)
    assert sum(peak >= threshold.value for peak in tail.peaks) == 10
    assert threshold.interval is not None
    low, high = threshold.interval
    assert low < threshold.rate < high
    assert (threshold.needed_points, threshold.margin, threshold.median) == (0, 0.0, 1.0)


def test_a_rarer_budget_is_extrapolated_and_says_what_would_calibrate_it() -> None:
    threshold = Threshold.from_tail(exponential(), Budget(1, 100_000))
    assert threshold.state == "EXTRAPOLATED"
    assert threshold.value == pytest.approx(2 + math.log(1000), rel=1e-3)
    # Five openings at 1 in 100 000 are seen in 500 000 points.
    assert threshold.needed_points == 490_000


def test_a_budget_beyond_the_level_gets_the_level_and_its_rate() -> None:
    threshold = Threshold.from_tail(exponential(), Budget(1, 2))
    assert (threshold.value, threshold.state) == (2.0, "CALIBRATED")
    assert threshold.rate == pytest.approx(0.01)


def test_without_a_tail_a_margin_is_taken_and_three_openings_are_not_ruled_out() -> None:
    threshold = Threshold.from_tail(TOO_LITTLE, Budget(1, 1000))
    assert threshold.state == "UNCALIBRATED"
    assert threshold.value == pytest.approx(5 + 0.5 * (5 - 1))
    assert threshold.margin == pytest.approx(0.5)
    assert threshold.interval == (0.0, 3 / POINTS)
    assert threshold.rate == 3 / POINTS
    # Three openings in 10 000 points: ten in 33 334.
    assert threshold.needed_points == 23_334
    assert threshold.rarity(100.0) == 3 / POINTS


@pytest.mark.parametrize("changes", [{"draws": ()}, {"dispersion": 11.0}, {"cross_fitted": False}])
def test_a_tail_of_too_little_is_not_followed(changes: dict[str, object]) -> None:
    threshold = Threshold.from_tail(exponential(**changes), Budget(1, 1000))
    assert threshold.state == "UNCALIBRATED"


def test_scores_of_what_was_fitted_to_promise_nothing() -> None:
    threshold = Threshold.from_tail(exponential(cross_fitted=False), Budget(1, 1000))
    assert (threshold.state, threshold.interval) == ("UNCALIBRATED", None)
    assert threshold.needed_points == POINTS
    assert threshold.margin == pytest.approx(2.0), "four times that of cross-fitted scores"
    lacking = exponential(cross_fitted=False, shortfall=321)
    assert Threshold.from_tail(lacking, Budget(1, 1000)).needed_points == 321


@pytest.mark.parametrize("level", [0.0, 1e-9, 0.3, -4.0, 1e6])
def test_constant_calibration_scores_do_not_alert_themselves(level: float) -> None:
    tail = Tail(level, level, 0.0, 0.0, 1e-6, 500)
    threshold = Threshold.from_tail(tail, Budget(1, 1000))
    assert np.float32(threshold.value) > np.float32(level)
    assert threshold.needed_points > 0


def test_sensitivity_multiplies_the_budget_within_bounds() -> None:
    tail, budget = exponential(), Budget(1, 10_000)
    double = Threshold.from_tail(tail, budget, 2.0)
    assert double == Threshold.from_tail(tail, Budget(2, 10_000))
    assert double.value < Threshold.from_tail(tail, budget).value
    least = Threshold.from_tail(TOO_LITTLE, budget, 0.5)
    assert least.margin == pytest.approx(1.0)
    for wrong in (0.05, 11, math.nan):
        with pytest.raises(ConfigError, match=r"sensitivity: .* is not in 0\.1…10"):
            Threshold.from_tail(tail, budget, wrong)


def test_rarity_of_the_threshold_is_its_rate_and_falls_from_there() -> None:
    threshold = Threshold.from_tail(exponential(), Budget(1, 1000))
    assert threshold.rarity(threshold.value) == pytest.approx(threshold.rate)
    assert threshold.rarity(0.0) == threshold.rarity(2.0) == pytest.approx(0.01)
    assert threshold.rarity(20.0) < threshold.rarity(10.0) < threshold.rate


@given(
    st.lists(
        st.tuples(st.floats(1e-6, 0.5), st.floats(-0.5, 1.0), st.floats(1e-3, 1e3)),
        min_size=1,
        max_size=9,
    ),
    st.floats(1e-9, 1.0),
)
def test_threshold_and_rate_are_inverse_for_every_draw(
    draws: list[tuple[float, float, float]], rate: float
) -> None:
    tail = Tail(0.0, 1.0, 0.01, 0.0, 1.0, 1000, (1.0,) * 10, tuple(draws))
    for i, value in enumerate(tail.quantile(rate)):
        known = draws[i][0]
        assert tail.rates(float(value))[i] == pytest.approx(min(rate, known), rel=1e-3)
    threshold = Threshold.from_tail(tail, Budget(rate, 1.0))
    assert math.isfinite(threshold.value)
    assert threshold.interval is not None
    assert threshold.interval[0] <= threshold.rate <= threshold.interval[1]


@given(st.floats(0.01, 3000.0))
def test_counts_of_a_known_rate_are_those_of_a_poisson_process(expected: float) -> None:
    tail = exponential(draws=((0.01, 0.0, 1.0),) * 2)
    threshold = Threshold.from_tail(tail, Budget(1, POINTS))
    points = expected / threshold.rate
    least, most = stats.poisson.ppf((0.05, 0.95), expected)
    # The last digit of a share may fall on either side of a whole count.
    near = [stats.poisson.ppf((0.05 + e, 0.95 + e), expected) for e in (-1e-9, 1e-9)]
    counts = threshold.counts(points)
    assert counts is not None
    assert min(near[0][0], least) <= counts[0] <= max(near[1][0], least)
    assert min(near[0][1], most) <= counts[1] <= max(near[1][1], most)


def test_counts_hold_what_calibration_leaves_open() -> None:
    draws = tuple((rate, 0.0, 1.0) for rate in np.linspace(0.002, 0.03, 100))
    threshold = Threshold.from_tail(exponential(draws=draws), Budget(1, POINTS))
    rng, points = np.random.default_rng(0), 50_000
    seen = rng.poisson(rng.choice(threshold.tail.rates(threshold.value), 20_000) * points)
    least, most = threshold.counts(points) or (0, 0)
    assert 0.89 < np.mean((seen >= least) & (seen <= most)) < 0.96
    assert most > stats.poisson.ppf(0.95, threshold.rate * points), "chance alone is not all"


def test_counts_without_a_tail() -> None:
    none_seen = Threshold.from_tail(TOO_LITTLE, Budget(1, POINTS))
    assert none_seen.counts(POINTS) == (0, 6)
    in_sample = dataclasses.replace(TOO_LITTLE, cross_fitted=False)
    assert Threshold.from_tail(in_sample, Budget(1, POINTS)).counts(POINTS) is None
