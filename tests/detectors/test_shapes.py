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
    _lengthened,
)
from edge_tsad.training.series import Segment

WINDOW = 96


def recording(points: int = 1500, *, channels: int = 1, seed: int = 0) -> Segment:
    rng = np.random.default_rng(seed)
    phase = 2 * np.pi * np.arange(points)[:, None] / 24
    clean = 0.3 * np.sin(phase + np.arange(channels)) + 0.1 * np.sin(3 * phase)
    values = (clean + 0.01 * rng.standard_normal(clean.shape)).astype(np.float32)
    return Segment(values, np.ones_like(values))


def bank(period: int = 24, window: int = WINDOW, *, channels: int = 1) -> ShapeBank:
    made = ShapeBank(short_timing(window=window, period=period), channels)
    made.fit([recording(channels=channels)], np.random.default_rng(0))
    return made


def plain(made: ShapeBank, x: np.ndarray, channel: int) -> np.ndarray:
    """The mean distance by a loop over stretches, each at the points where it counts."""
    spread = recording(channels=made.channels).values[:, channel].astype(np.float64).std()
    total = np.zeros(len(x))
    for shapes in made._sets():
        reach, found = shapes.length * made.step, np.full(len(x), np.nan)
        for begin in range(len(x) % made.step, len(x) - reach + 1, shapes.stride * made.step):
            coarse = x[begin : begin + reach].reshape(-1, made.step).mean(axis=1)
            shape = coarse - coarse.mean()
            shape /= max(coarse.std(), FLATTEST * spread) * np.sqrt(shapes.length)
            distance = np.linalg.norm(shapes.shapes.numpy() - shape, axis=1).min()
            middle = begin + (shapes.length - shapes.stride) // 2 * made.step
            soft = np.hypot(distance, SOFTENING) - SOFTENING
            found[middle : middle + shapes.stride * made.step] = soft / shapes.unit[channel].item()
        known = np.flatnonzero(~np.isnan(found))
        total += np.interp(np.arange(len(x)), known, found[known])
    return total / len(made.sets)


@pytest.mark.parametrize(("period", "window"), [(24, 96), (8, 96), (100, 408), (230, 1000)])
@pytest.mark.parametrize("channels", [1, 3])
def test_distances_are_those_of_the_definition(period: int, window: int, channels: int) -> None:
    made = bank(period, window, channels=channels)
    x = recording(window, channels=channels, seed=3).values.copy()
    x[40:50] += 0.2
    out = made(torch.from_numpy(x)[None]).numpy()[0]
    for channel in range(channels):
        expected = plain(made, x[:, channel].astype(np.float64), channel)
        np.testing.assert_allclose(out[:, channel], expected, atol=2e-3)


def test_a_shape_never_seen_is_far_and_level_and_size_alone_are_not() -> None:
    made = bank()
    x = recording(WINDOW, seed=5).values
    normal = made(torch.from_numpy(x)[None]).numpy().max()
    assert normal < 1
    for same in (x + 0.5, 2 * x):
        assert made(torch.from_numpy(same)[None]).numpy().max() < 1
    strange = x.copy()
    strange[40:52] = strange[40:52][::-1]
    assert made(torch.from_numpy(strange)[None]).numpy()[0, 40:52].max() > 3 * normal


def test_a_flat_line_is_far_from_all_shapes_of_a_signal_that_moves() -> None:
    made = bank()
    assert made(torch.full((1, WINDOW, 1), 0.2)).numpy().min() > 2


def test_int8_holds_each_shape_exactly() -> None:
    for made in bank()._sets():
        shapes = made.shapes.numpy()
        step = np.abs(shapes).max(axis=1, keepdims=True) / GRID
        np.testing.assert_allclose(np.rint(shapes / step) * step, shapes, atol=1e-7)


def test_a_history_of_few_stretches_is_its_own_bank() -> None:
    made = ShapeBank(short_timing(window=WINDOW, period=24), 1)
    made.fit([recording(60)], np.random.default_rng(0))
    for shapes in made._sets():
        assert len(shapes.shapes) == SHAPES
        assert shapes.unit.item() == pytest.approx(LEAST_UNIT)


def test_missing_points_and_channels_leave_no_shapes() -> None:
    gappy = recording(channels=2)
    gappy.observed[:, 1] = 0
    gappy.values[300:700] = 9.0
    gappy.observed[300:700] = 0
    made = ShapeBank(short_timing(window=WINDOW, period=24), 2)
    made.fit([gappy], np.random.default_rng(0))
    x = recording(WINDOW, channels=2, seed=5).values
    out = made(torch.from_numpy(x)[None]).numpy()
    assert out[..., 0].max() < 2
    assert np.isfinite(out).all()


@given(st.integers(1, 6), st.integers(0, 9), st.integers(0, 9))
@settings(deadline=None, max_examples=40)
def test_stretches_are_all_views_of_a_length(short: int, longer: int, more: int) -> None:
    series = torch.arange(2 * 3 * (short + longer + more), dtype=torch.float32).reshape(2, 3, -1)
    found = _lengthened(_lengthened(series.unsqueeze(3), short), short + longer)
    assert torch.equal(found, series.unfold(2, short + longer, 1))


def test_lengths_are_a_quarter_a_half_and_the_whole_of_a_period() -> None:
    made = ShapeBank(short_timing(window=1000, period=230), 1)
    assert [shapes.length * made.step for shapes in made._sets()] == [60, 115, 230]
