from __future__ import annotations

import numpy as np
import pytest
from oracles.histories import sines

from edge_tsad.training.period import dominant_period


@pytest.mark.parametrize("period", [7, 16, 50, 183, 400])
def test_a_sine_with_noise_has_its_period(period: int) -> None:
    found = dominant_period(sines(8 * period + 100, period=period))
    assert found.found
    assert abs(found.points - period) <= max(1, period // 50)
    assert 0.5 < found.strength <= 1


def test_a_pulse_train_with_drift_has_its_period_and_no_multiple_of_it() -> None:
    positions = np.arange(4000)
    pulses = np.exp(-0.5 * ((positions % 90 - 20) / 3) ** 2)
    drift = 0.001 * positions + 0.3 * np.sin(positions / 900)
    noise = np.random.default_rng(0).normal(0, 0.1, 4000)
    found = dominant_period((pulses + drift + noise)[:, None].astype(np.float32))
    assert found.found
    assert abs(found.points - 90) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_noise_a_random_walk_and_a_ramp_have_none(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(3000, 1)).astype(np.float32)
    assert not dominant_period(noise).found
    assert not dominant_period(np.arange(3000, dtype=np.float32)[:, None]).found


@pytest.mark.parametrize("points", [1, 3, 12])
def test_a_short_or_constant_series_gets_the_stand_in(points: int) -> None:
    for values in (sines(points), np.full((500, 2), 7.0, np.float32)):
        found = dominant_period(values)
        assert not found.found
        assert 16 <= found.points <= 128
        assert found.strength == 0


def test_missing_values_and_idle_channels_do_not_hide_it() -> None:
    values = np.concatenate([sines(2000, period=40), np.zeros((2000, 2), np.float32)], axis=1)
    rng = np.random.default_rng(0)
    values[rng.random(2000) < 0.2, 0] = np.nan
    values[:, 2] = np.nan
    found = dominant_period(values)
    assert found.found
    assert abs(found.points - 40) <= 1


def test_a_million_points_take_no_time() -> None:
    assert dominant_period(sines(1_000_000, period=500)).found
