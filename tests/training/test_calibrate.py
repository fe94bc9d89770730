"""Folds that leak nothing, the tail that fits the policy's openings, and intervals that hold."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.histories import history, short_timing, sines
from oracles.toy_detector import ToyDetector
from scipy.signal import lfilter

from edge_tsad.detectors.coad import CoAD
from edge_tsad.errors import DataError
from edge_tsad.runtime.openings import count_openings
from edge_tsad.runtime.threshold import Budget, Tail, Threshold
from edge_tsad.training.calibrate import CrossFit, fit_tail, folds, lacking
from edge_tsad.training.series import Series
from edge_tsad.types import FloatArray, PolicySettings, Timing

POLICY = PolicySettings()


def autocorrelated(rng: np.random.Generator, points: int, memory: float = 0.9) -> FloatArray:
    """Scores with lognormal tails and the memory of an AR(1) process."""
    noise = rng.standard_normal(points + 500) * np.sqrt(1 - memory**2)
    smooth = lfilter([1], [1, -memory], noise)[500:]
    return np.exp(0.5 * smooth).astype(np.float32)


def tail_of(score: FloatArray, policy: PolicySettings = POLICY, blocks: int = 5) -> Tail:
    return fit_tail(np.array_split(score, blocks), policy, 0)


@given(st.integers(1, 400), st.integers(2, 6), st.integers(1, 20))
def test_folds_cover_all_and_train_a_window_away(points: int, blocks: int, window: int) -> None:
    steps = np.random.default_rng(points).choice([1, 1, 1, 5, 50], points)
    index = np.cumsum(steps)
    cut = folds(index, blocks, window)
    assert bool(cut) == (lacking(points, blocks, window) == 0)
    if not cut:
        return
    held = [index[fold.held_out] for fold in cut]
    np.testing.assert_array_equal(np.concatenate(held), index)
    for fold in cut:
        trained = np.concatenate([index[part] for part in fold.train])
        assert len(trained) >= window
        distance = np.abs(trained[:, None] - index[fold.held_out][None, [0, -1]])
        assert distance.min() > window
        primed = index[fold.primed]
        assert primed[0] >= index[fold.held_out][0] - window
        assert not set(primed) & set(trained)


def test_a_short_history_has_no_folds_and_lacks_a_stated_number_of_points() -> None:
    for blocks in (2, 3, 5):
        short = lacking(0, blocks, 10)
        assert folds(np.arange(short), blocks, 10)
        assert not folds(np.arange(short - 1), blocks, 10)
        assert lacking(short - 7, blocks, 10) == 7


def detector(timing: Timing) -> ToyDetector:
    torch.manual_seed(0)
    return ToyDetector(timing, channels=1).eval()


def test_cross_fitting_hides_the_block_and_its_surroundings_and_scores_all_of_it() -> None:
    timing, series = short_timing(), history(sines(1500))
    parts: list[Series] = []

    def fit(part: Series) -> ToyDetector:
        parts.append(part)
        return detector(timing)

    scores = CrossFit(series, timing, fit, blocks=3).start()(detector(timing))
    assert len(scores) == len(parts) == 3
    for number, part in enumerate(parts):
        hidden = np.flatnonzero(np.isnan(part.values[:, 0]))
        first, last = max(0, 500 * number - 64), min(1499, 500 * number + 563)
        assert (hidden[0], hidden[-1], len(hidden)) == (first, last, last - first + 1)
    # The purged points prime the scorer: only both ends of the history have no scores.
    assert [len(score) for _, score in scores] == [500 - 63, 500, 500 - 16]
    assert np.concatenate([index for index, _ in scores]).tolist() == list(range(63, 1484))


def test_other_processes_give_the_same_scores() -> None:
    timing = short_timing()
    fit = functools.partial(CoAD.fit, timing=timing, seed=0, effort=0.02)
    cross_fit = CrossFit(history(sines(600)), timing, fit, blocks=2)
    here, there = (cross_fit.start(count)(detector(timing)) for count in (1, 2))
    assert len(here) == 2
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one.cells, other.cells)
        np.testing.assert_array_equal(one.score, other.score)


def test_a_history_too_short_or_unfit_for_folds_is_scored_by_the_shipped_net() -> None:
    timing = short_timing()

    def refuse(part: Series) -> ToyDetector:
        raise DataError("constant")

    for points in (200, 1500):
        calibrate = CrossFit(history(sines(points)), timing, refuse, blocks=2).start()
        ((_, score),) = calibrate(detector(timing))
        assert len(score) == points - 63 - 16
        tail = fit_tail([score], POLICY, 0)
        assert not tail.cross_fitted
        assert Threshold.from_tail(tail, Budget(1, 100)).state == "UNCALIBRATED"


POLICIES = [
    POLICY,
    PolicySettings(hysteresis=0.5, minimum_duration=3),
    PolicySettings(resolve_after=40, cooldown=100),
]


@pytest.mark.parametrize("policy", POLICIES)
def test_peaks_at_or_above_a_threshold_are_the_alerts_it_opens(policy: PolicySettings) -> None:
    score = autocorrelated(np.random.default_rng(1), 6000)
    blocks = np.array_split(score, 4)
    tail = fit_tail(blocks, policy, 0)
    assert 10 <= len(tail.peaks) <= 100
    assert tail.rate == pytest.approx(len(tail.peaks) / 6000, rel=1e-5)
    for threshold in np.linspace(tail.level * 1.001, tail.highest, 25):
        opened = sum(count_openings(b, float(threshold), tail.median, policy) for b in blocks)
        # Six digits, at most 250 thresholds, and merged alerts: one or two may differ.
        assert abs(sum(peak >= threshold for peak in tail.peaks) - opened) <= 2


def test_equal_seeds_give_equal_tails_and_they_survive_json() -> None:
    score = autocorrelated(np.random.default_rng(2), 3000)
    tail = tail_of(score)
    assert tail == tail_of(score)
    assert tail != fit_tail(np.array_split(score, 5), POLICY, 1)
    text = json.dumps(tail.to_json())
    assert Tail.from_json(json.loads(text)) == tail
    assert len(text) < 6000
    assert len(tail.draws) == 100
    assert fit_tail([score], POLICY, 0).draws == ()


def test_a_known_tail_is_recovered() -> None:
    # Independent scores of a Pareto tail of shape 0.25: openings above x are as rare as scores.
    uniform = np.random.default_rng(3).random(30_000)
    score = ((uniform**-0.25 - 1) / 0.25).astype(np.float32)
    tail = tail_of(score)
    assert tail.shape == pytest.approx(0.25, abs=0.15)
    threshold = Threshold.from_tail(tail, Budget(1, 1000))
    assert threshold.value == pytest.approx((1000**0.25 - 1) / 0.25, rel=0.1)


@pytest.mark.parametrize(
    ("points", "budget", "state"), [(15_000, 1e-3, "CALIBRATED"), (2500, 1e-4, "EXTRAPOLATED")]
)
def test_fresh_data_keep_to_the_stated_interval(points: int, budget: float, state: str) -> None:
    fresh = autocorrelated(np.random.default_rng(99), 1_000_000)
    inside = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        threshold = Threshold.from_tail(tail_of(autocorrelated(rng, points)), Budget(budget, 1))
        assert threshold.state == state
        opened = count_openings(fresh, threshold.value, threshold.median, POLICY) / len(fresh)
        assert threshold.interval is not None
        inside.append(threshold.interval[0] <= opened <= threshold.interval[1])
    assert np.mean(inside) >= 0.85


def test_the_interval_narrows_with_more_history() -> None:
    widths = []
    for points in (2000, 20_000):
        score = autocorrelated(np.random.default_rng(5), points)
        interval = Threshold.from_tail(tail_of(score), Budget(1, 2000)).interval
        assert interval is not None
        widths.append(interval[1] - interval[0])
    assert widths[1] < widths[0] / 2


def test_openings_in_bouts_widen_the_interval() -> None:
    rng = np.random.default_rng(6)
    even = rng.standard_exponential(8000).astype(np.float32)
    bouts = even * np.repeat(np.where(np.arange(16) % 8 == 0, 1.5, 1), 500).astype(np.float32)
    assert tail_of(even).dispersion < 2.5 < tail_of(bouts).dispersion


@pytest.mark.parametrize(
    "score",
    [
        np.zeros(500),
        np.full(500, 0.3),
        np.r_[np.zeros(499), 1.0],
        np.tile([0.0, 1.0], 250),
        np.arange(500.0),
        np.r_[np.full(400, np.nan), np.arange(3.0)],
        np.array([1.0]),
        np.round(np.random.default_rng(0).gamma(2, 1, 1200)),
        np.r_[np.random.default_rng(0).gamma(2, 1, 1200), 1e9],
        np.full(500, 3e-42),
    ],
    ids=[
        "zero",
        "constant",
        "one peak",
        "two values",
        "ramp",
        "gaps",
        "point",
        "ties",
        "outlier",
        "tiny",
    ],
)
def test_odd_scores_give_a_threshold_and_never_a_refusal(score: FloatArray) -> None:
    for blocks in (1, 2, 5):
        tail = tail_of(score.astype(np.float32), blocks=blocks)
        assert Tail.from_json(tail.to_json()) == tail
        threshold = Threshold.from_tail(tail, Budget(1, 10_000))
        assert np.isfinite(threshold.value)
        assert threshold.needed_points > 0
        if threshold.state == "UNCALIBRATED":
            assert np.float32(threshold.value) > np.nanmax(score.astype(np.float32))
        assert tail.points == np.count_nonzero(~np.isnan(score))


def test_blocks_without_any_score_are_passed_over() -> None:
    score = autocorrelated(np.random.default_rng(7), 3000)
    nothing = np.full(100, np.nan, np.float32)
    tail = fit_tail([nothing, score[:1500], score[1500:], np.empty(0, np.float32)], POLICY, 0)
    whole = fit_tail([score[:1500], score[1500:]], POLICY, 0)
    assert (tail.points, tail.peaks, tail.median) == (3000, whole.peaks, whole.median)


def test_no_score_at_all_or_an_infinite_one_is_refused_in_words() -> None:
    for blocks in ([], [np.full(9, np.nan, np.float32)]):
        with pytest.raises(DataError, match="no point of the history has a score"):
            fit_tail(blocks, POLICY, 0)
    with pytest.raises(DataError, match="infinite"):
        fit_tail([np.array([1, np.inf], np.float32)], POLICY, 0)


def test_four_hours_of_minutes_degrade_to_a_stated_guess() -> None:
    score = autocorrelated(np.random.default_rng(8), 240, memory=0.95)
    threshold = Threshold.from_tail(tail_of(score, blocks=2), Budget(1, 7 * 1440))
    assert threshold.state == "UNCALIBRATED"
    assert threshold.needed_points > 0
    assert threshold.interval == (0.0, 3 / 240)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 7.0, np.nan]), min_size=2, max_size=60),
    st.sampled_from(POLICIES),
    st.integers(1, 4),
)
def test_any_scores_give_a_valid_tail(
    score: list[float], policy: PolicySettings, blocks: int
) -> None:
    values = np.array([*score, 1.0], np.float32)
    tail = fit_tail(np.array_split(values, blocks), policy, 0, shortfall=3)
    assert tail.shortfall == 3
    dataclasses.replace(tail)
    assert all(a >= b for a, b in itertools.pairwise(tail.peaks))
