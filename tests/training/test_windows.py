from __future__ import annotations

import numpy as np
from oracles.histories import sines

from edge_tsad.training.scaling import history_scale
from edge_tsad.training.series import Segment
from edge_tsad.training.windows import WindowSampler, drop_out


def segment(values: np.ndarray) -> Segment:
    values = values.astype(np.float32)
    return Segment(values, np.ones_like(values))


def test_every_window_of_every_long_enough_segment_can_be_drawn() -> None:
    rows = np.arange(100.0)[:, None]
    sampler = WindowSampler([segment(rows[:12]), segment(rows[20:25]), segment(rows[40:50])], 10)
    assert len(sampler) == 4
    values, observed = sampler.draw(200, np.random.default_rng(0))
    assert values.shape == observed.shape == (200, 10, 1)
    assert set(values[:, 0, 0]) == {0, 1, 2, 40}
    assert np.all(np.diff(values[:, :, 0], axis=1) == 1)
    assert sampler.spread(2)[0][:, 0, 0].tolist() == [0, 40]
    assert len(sampler.spread(50)[0]) == 4


def test_points_stretches_and_channels_are_left_out_but_never_all_channels() -> None:
    kept = drop_out((400, 64, 3), np.random.default_rng(0))
    missing = kept == 0
    assert 0.3 < missing.any(axis=(1, 2)).mean() < 0.7
    assert not missing.all(axis=(1, 2)).any()
    channels = missing.all(axis=1)
    assert channels.any()
    assert not channels.all(axis=1).any()
    assert (missing.all(axis=2).sum(axis=1) > 4).any()


def test_windows_with_the_extremes_of_each_channel_are_found_in_every_segment() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.uniform(-1, 1, (60, 2)) for _ in range(2))
    first[2, 0], second[30, 0], second[58, 1], first[40, 1] = 9, -9, 8, -8
    sampler = WindowSampler([segment(first), segment(second), segment(100 * second[:5])], 10)
    values, observed = sampler.extremes(32)
    assert values.shape == observed.shape == (4, 10, 2)
    for channel, most, least in ((0, 9, -9), (1, 8, -8)):
        assert values[..., channel].max() == most
        assert values[..., channel].min() == least
    assert len(sampler.extremes(3)[0]) == 3


def test_a_value_that_was_not_measured_is_no_extreme() -> None:
    part = segment(np.sin(np.arange(100.0))[:, None])
    part.values[50], part.observed[50] = 99, 0
    values, observed = WindowSampler([part], 10).extremes(32)
    assert (values[observed > 0] <= 1).all()
    starts = {float(window[0, 0]) for window in values}
    best = part.values[np.where(part.observed[:, 0] > 0)[0]].max()
    assert best in values
    assert len(starts) == 2


def test_the_scale_spans_the_history_and_one_spike_does_not_stretch_it() -> None:
    values = sines(2000, channels=2)
    scale = history_scale([segment(values)])
    scaled = (values - scale.offset) / scale.scale
    np.testing.assert_allclose(np.abs(scaled).max(axis=0), 0.5, atol=1e-5)
    values[100, 0] = 1e6
    assert history_scale([segment(values)]).scale[0] < 3


def test_constant_and_empty_channels_have_a_range_above_zero() -> None:
    values = np.zeros((100, 4))
    values[:, 1] = 5.0
    values[:, 2] = np.linspace(101325, 101326, 100)
    observed = np.ones_like(values, dtype=np.float32)
    observed[:, 3] = 0
    scale = history_scale([Segment(values.astype(np.float32), observed)])
    assert np.all(scale.scale > 0)
    assert scale.offset[1] == 5
    assert scale.scale[2] == 1
