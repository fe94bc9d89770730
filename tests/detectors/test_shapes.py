"""The bank of normal shapes against the plain definition of what it computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.histories import short_timing

from edge_tsad.detectors.shapes import (
    FLATTEST,
    GRID,
    LEAST_UNIT,
    SHAPES,
    SOFTENING,
    ShapeBank,
    _stretches,
    banks_for,
)
from edge_tsad.training.series import Segment

WINDOW = 96


def recording(points: int = 1500, *, channels: int = 1, seed: int = 0) -> Segment:
    rng = np.random.default_rng(seed)
    phase = 2 * np.pi * np.arange(points)[:, None] / 24
    clean = 0.3 * np.sin(phase + np.arange(channels)) + 0.1 * np.sin(3 * phase)
    values = (clean + 0.01 * rng.standard_normal(clean.shape)).astype(np.float32)
    return Segment(values, np.ones_like(values))


def bank(points: int = 24, values: int = 12, *, channels: int = 1) -> ShapeBank:
    made = ShapeBank(WINDOW, channels, points, values)
    made.fit([recording(channels=channels)], np.random.default_rng(0))
    return made


def plain(made: ShapeBank, x: np.ndarray, channel: int) -> np.ndarray:
    """Each stretch's distance by a loop, at the point where the stretch counts first."""
    spread = recording(channels=made.channels).values[:, channel].astype(np.float64).std()
    length, found = made.values * made.step, np.full(len(x), np.nan)
    start = len(x) % made.step
    for begin in range(start, len(x) - length + 1, made.stride * made.step):
        coarse = x[begin : begin + length].reshape(-1, made.step).mean(axis=1)
        shape = coarse - coarse.mean()
        shape /= max(coarse.std(), FLATTEST * spread) * np.sqrt(made.values)
        distance = np.linalg.norm(made.shapes.numpy() - shape, axis=1).min()
        middle = begin + (made.values - made.stride) // 2 * made.step
        soft = np.hypot(distance, SOFTENING) - SOFTENING
        found[middle : middle + made.stride * made.step] = soft / made.unit[channel].item()
    return found


@pytest.mark.parametrize(("points", "values"), [(24, 12), (24, 24), (20, 8), (31, 10)])
@pytest.mark.parametrize("channels", [1, 3])
def test_distances_are_those_of_the_definition(points: int, values: int, channels: int) -> None:
    made = bank(points, values, channels=channels)
    x = recording(WINDOW, channels=channels, seed=3).values.copy()
    x[40:50] += 0.2
    out = made(torch.from_numpy(x)[None]).numpy()[0]
    assert out.shape == x.shape
    for channel in range(channels):
        expected = plain(made, x[:, channel].astype(np.float64), channel)
        known = ~np.isnan(expected)
        np.testing.assert_allclose(out[known, channel], expected[known], atol=2e-3)
        first, last = np.flatnonzero(known)[[0, -1]]
        assert np.ptp(out[:first, channel]) == np.ptp(out[last:, channel]) == 0


def test_a_shape_never_seen_is_far_and_level_and_size_alone_are_not() -> None:
    made = bank()
    x = recording(WINDOW, seed=5).values
    normal = made(torch.from_numpy(x)[None]).numpy().max()
    assert normal < 2
    for same in (x + 0.5, 2 * x):
        assert made(torch.from_numpy(same)[None]).numpy().max() < 1.5 * normal
    strange = x.copy()
    strange[40:52] = strange[40:52][::-1]
    assert made(torch.from_numpy(strange)[None]).numpy()[0, 40:52].max() > 3 * normal


def test_a_flat_line_is_far_from_all_shapes_of_a_signal_that_moves() -> None:
    made = bank()
    assert made(torch.full((1, WINDOW, 1), 0.2)).numpy().min() > 2


def test_int8_holds_each_shape_exactly() -> None:
    shapes = bank().shapes.numpy()
    step = np.abs(shapes).max(axis=1, keepdims=True) / GRID
    np.testing.assert_allclose(np.rint(shapes / step) * step, shapes, atol=1e-7)


def test_a_history_of_few_stretches_is_its_own_bank() -> None:
    made = ShapeBank(WINDOW, 1, 24, 12)
    short = recording(60)
    made.fit([short], np.random.default_rng(0))
    assert len(made.shapes) == SHAPES
    assert made.unit.item() == pytest.approx(LEAST_UNIT)


def test_missing_points_and_channels_leave_no_shapes() -> None:
    gappy = recording(channels=2)
    gappy.observed[:, 1] = 0
    gappy.values[300:700] = 9.0
    gappy.observed[300:700] = 0
    made = ShapeBank(WINDOW, 2, 24, 12)
    made.fit([gappy], np.random.default_rng(0))
    x = recording(WINDOW, channels=2, seed=5).values
    assert made(torch.from_numpy(x)[None]).numpy()[..., 0].max() < 2
    assert torch.isfinite(made.unit).all()


@given(st.integers(1, 12), st.integers(0, 9))
@settings(deadline=None, max_examples=40)
def test_stretches_are_all_views_of_a_length(length: int, more: int) -> None:
    series = torch.arange(2 * 3 * (length + more), dtype=torch.float32).reshape(2, 3, -1)
    assert torch.equal(_stretches(series, length), series.unfold(2, length, 1))


def test_banks_are_as_long_as_the_period_and_half_of_it() -> None:
    timing = short_timing()
    lengths = [made.values * made.step for made in banks_for(timing, 1)]
    assert lengths == [16, 8]
