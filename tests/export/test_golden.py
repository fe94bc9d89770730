"""Golden windows and the tails of files."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles import toy_files

from edge_tsad.training.torch_backend import TorchBackend
from export.golden import golden_bounds, make_golden, surrogates
from export.quantize import SCHEMES
from export.tail import ScoreMap
from export.verify import run
from export.windows import Windows, distorted

LEVEL = 0.25


def golden_windows(seed):
    backend, period = TorchBackend(toy_files.detector()), toy_files.detector().timing.period
    return make_golden(backend, toy_files.normal(), period, count=16, seed=seed)


@pytest.fixture(scope="module")
def made():
    return golden_windows(seed=3)


@pytest.fixture(scope="module")
def golden(made):
    return made[0]


class TestSurrogates:
    @pytest.mark.parametrize("points", [64, 63])
    def test_keep_mean_and_spectrum_and_what_channels_share(self, points):
        windows = toy_files.normal(6).window[:, :points]
        made = surrogates(windows, np.random.default_rng(0))
        before, after = (np.fft.rfft(w.astype(float), axis=1) for w in (windows, made))
        assert np.allclose(np.abs(before), np.abs(after), atol=1e-3)
        assert np.allclose(windows.mean(axis=1), made.mean(axis=1), atol=1e-4)
        cross = [spectrum[..., 0] * spectrum[..., 1].conj() for spectrum in (before, after)]
        assert np.allclose(*cross, rtol=1e-3, atol=1e-1)

    def test_are_not_the_history(self):
        windows = toy_files.normal(6).window
        made = surrogates(windows, np.random.default_rng(0))
        assert np.abs(made - windows).mean() > 0.1 * windows.std()

    def test_a_constant_window_stays_what_it_is(self):
        flat = np.full((2, 16, 1), 7, np.float32)
        assert np.allclose(surrogates(flat, np.random.default_rng(0)), 7)


class TestGolden:
    def test_lie_on_both_sides_of_what_normal_windows_reach(self, made):
        golden, level = made
        assert (golden.score.max(axis=1) >= level).sum() == 8
        assert len(golden.score) == 16
        normal = run(TorchBackend(toy_files.detector()), toy_files.normal())["score"].max()
        assert level == pytest.approx(normal, rel=0.5)

    def test_carry_the_detectors_scores(self, golden):
        windows = Windows(golden.window, golden.observed)
        score = run(TorchBackend(toy_files.detector()), windows)["score"]
        assert np.allclose(score, golden.score, atol=1e-6)

    def test_hold_missing_points(self, golden):
        assert set(np.unique(golden.observed)) == {0, 1}

    def test_hold_no_window_of_the_history(self, golden):
        for window in toy_files.normal().window:
            assert np.abs(golden.window - window).max(axis=(1, 2)).min() > 0.5

    def test_equal_seeds_give_equal_windows(self, golden):
        again, _ = golden_windows(seed=3)
        assert np.array_equal(again.window, golden.window)
        other, _ = golden_windows(seed=4)
        assert not np.array_equal(other.window, golden.window)

    @pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
    def test_bounds_hold_twice_what_was_measured_and_little_more(self, golden, scheme):
        error = 0.05 * (0.2 + golden.score)
        bounds = golden_bounds(scheme, golden, golden.score + error, level=LEVEL, unit=0.2)
        allowed = bounds.absolute + bounds.relative * golden.score
        slack = scheme.across * 0.2 + scheme.across_relative * golden.score
        assert np.allclose(allowed, 2 * error + slack, rtol=1e-4)
        assert bounds.level == LEVEL

    def test_errors_far_above_the_level_widen_no_bound_near_it(self, golden):
        score = golden.score * np.float32(1.05)
        bounds = golden_bounds(SCHEMES["dynamic"], golden, score, level=LEVEL, unit=0.2)
        high = dataclasses.replace(golden, score=golden.score * np.float32(100))
        far = golden_bounds(SCHEMES["dynamic"], high, score * 100, level=LEVEL, unit=0.2)
        assert far.absolute < 2 * bounds.absolute


def test_distorted_windows_are_reproducible_and_distorted():
    normal = toy_files.normal()
    first, second = (distorted(normal, 16, seed=1) for _ in range(2))
    assert np.array_equal(first.window, second.window)
    assert len(first) == len(normal)
    changed = (first.window != normal.window).any(axis=(1, 2))
    assert changed.mean() > 0.9


numbers = st.floats(0, 50, width=16)
scores = arrays(np.float32, st.integers(2, 60), elements=numbers)
pairs = arrays(np.float32, st.tuples(st.just(2), st.integers(2, 60)), elements=numbers)


class TestScoreMap:
    @settings(deadline=None)  # a busy machine is no failure
    @given(scores)
    def test_is_the_identity_for_equal_scores(self, score):
        assert np.allclose(ScoreMap(score, score)(score), score, rtol=1e-4, atol=1e-4)

    @settings(deadline=None)
    @given(pairs)
    def test_is_monotone_and_not_negative(self, pair):
        detector, file = pair
        grid = np.linspace(0, 80, 500, dtype=np.float32)
        mapped = ScoreMap(detector, file)(grid)
        assert (np.diff(mapped) >= -1e-4).all()
        assert (mapped >= 0).all()

    def test_follows_gain_and_ceiling(self):
        x = np.linspace(0, 10, 1000, dtype=np.float32)
        assert np.allclose(ScoreMap(x, x * 2)(x), x * 2, atol=1e-3)
        assert ScoreMap(x, np.minimum(x, 5))(np.float32([8.0]))[0] == pytest.approx(5, abs=1e-3)

    def test_does_not_follow_errors_of_a_few_scores(self):
        """A tail's fit would enlarge them, and the threshold move by more than the scores."""
        rng = np.random.default_rng(0)
        x = np.sort(rng.gamma(2, 1, 20_000)).astype(np.float32)
        noisy = x + rng.normal(0, 0.05, x.shape).astype(np.float32)
        noisy[-20:] += 0.5
        assert np.abs(ScoreMap(x, noisy)(x) - x)[x > 0.3].max() < 0.02

    def test_goes_on_in_parallel_beyond_what_was_seen(self):
        x = np.linspace(1, 2, 100, dtype=np.float32)
        assert ScoreMap(x, x + 0.5)(np.float32([10.0]))[0] == pytest.approx(10.5)

    def test_what_was_withheld_stays_withheld(self):
        x = np.linspace(1, 2, 100, dtype=np.float32)
        mapped = ScoreMap(x, x)(np.float32([np.nan, 1.5]))
        assert np.isnan(mapped[0])
        assert mapped[1] == pytest.approx(1.5)
