"""CMDML's own parts."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from oracles.histories import history, short_timing, sines

from edge_tsad.detectors.behaviours import behaviours
from edge_tsad.detectors.cmdml import CMDML
from edge_tsad.detectors.cmdml_fit import Pool, loss_of
from edge_tsad.detectors.cmdml_history import cluster, robust_scale
from edge_tsad.detectors.cmdml_net import CMDMLSettings, MetricSpace
from edge_tsad.detectors.joint_state import JointState
from edge_tsad.detectors.modalities import MODALITIES, Stretches, cosines_and_sines, features_of
from edge_tsad.detectors.triplets import (
    centre_pull,
    centre_push,
    hardest_negatives,
    triplet_loss,
)
from edge_tsad.errors import ConfigError
from edge_tsad.training.distortion import distort
from edge_tsad.training.series import Segment
from edge_tsad.types import Timing

LOSSES: list[float] = []


@cache
def net() -> CMDML:
    """Three channels, fitted well enough to tell."""
    return CMDML.fit(
        history(sines(1200, channels=3)),
        short_timing(),
        seed=0,
        progress=lambda step, steps, loss: LOSSES.append(loss),
        steps=120,
        classes=6,
    )


def normal_windows(count: int = 24) -> np.ndarray:
    values = sines(1200, channels=3, seed=9)
    return np.stack([values[start : start + 64] for start in range(0, count * 40, 40)])


def run(detector: CMDML, window: np.ndarray, observed: np.ndarray | None = None) -> dict:
    known = np.ones_like(window) if observed is None else observed
    given = torch.from_numpy(window), torch.from_numpy(known)
    with torch.inference_mode():
        out = detector(*given)
    return {name: tensor.numpy() for name, tensor in out.items()}


def test_the_loss_falls() -> None:
    net()
    assert np.mean(LOSSES[-15:]) < 0.6 * np.mean(LOSSES[:5])


def test_distorted_points_score_higher_than_normal_ones() -> None:
    distorted = distort(normal_windows(), 16, np.random.default_rng(3))
    changed = distorted.changed.any(axis=2)[:, 32:]
    found = run(net(), distorted.values)["score"][:, 32:]
    normal = run(net(), normal_windows())["score"][:, 32:]
    ranks = np.searchsorted(np.sort(normal.ravel()), found[changed]) / normal.size
    assert ranks.mean() > 0.7


def test_the_channel_that_fails_has_the_greatest_part() -> None:
    for channel in range(3):
        window = normal_windows(4)
        window[:, 30:60, channel] *= 8
        parts = run(net(), window)["channel_score"][:, 30:60]
        assert np.mean(parts.argmax(axis=2) == channel) > 0.7


def test_the_parts_of_the_channels_sum_up_to_the_score() -> None:
    out = run(net(), normal_windows())
    np.testing.assert_allclose(out["channel_score"].sum(axis=2), out["score"], rtol=1e-5)


def test_the_sign_of_a_mean_direction_does_not_matter() -> None:
    flipped = CMDML.from_settings(net().settings())
    flipped.load_state_dict(net().state_dict())
    flipped.means[::2] *= -1
    for name, array in run(net(), normal_windows()).items():
        np.testing.assert_array_equal(run(flipped, normal_windows())[name], array)


def test_details_tell_class_and_turn_where_they_are_known() -> None:
    out = run(net(), normal_windows())
    behaviour, turn = out["class"], out["turn_deg"]
    first = net().space.stretches.length - 1
    assert np.all(behaviour[:, : 8 * first] == -1)
    known = behaviour[:, 8 * first :]
    assert np.all((known == np.rint(known)) & (known >= 0) & (known < len(net().means)))
    assert len(np.unique(known)) > 1
    assert np.all(turn[:, : 8 * 2 * first] == -1)
    assert np.all((turn == -1) | ((turn >= 0) & (turn <= 90)))


def test_another_movement_turns_the_direction_further() -> None:
    window = normal_windows()
    normal = run(net(), window)["turn_deg"]
    faster = window[:, ::2].repeat(2, axis=1)  # the same values, in steps
    faster[:, 1::2] *= -1
    odd = run(net(), faster)["turn_deg"]
    assert np.median(odd[odd >= 0]) > np.median(normal[normal >= 0]) + 5


def test_an_unseen_window_has_no_details() -> None:
    window = normal_windows(2)
    out = run(net(), window, np.zeros_like(window))
    assert np.all(out["class"] == -1)
    assert np.all(out["turn_deg"] == -1)


@pytest.mark.parametrize("level", [0.0, 7.0])
def test_a_strictly_periodic_history_and_a_constant_channel_are_no_trouble(level: float) -> None:
    values = np.sin(2 * np.pi * np.arange(800) / 16)[:, None].astype(np.float32)
    values = np.concatenate([values, np.full_like(values, level)], axis=1)
    detector = CMDML.fit(history(values), short_timing(), seed=0, steps=10)
    window = np.stack([values[start : start + 64] for start in (0, 5, 11)])
    normal = run(detector, window)
    assert all(np.isfinite(array).all() for array in normal.values())
    assert normal["score"].max() < 2
    window[:, 40:, 1] += 5
    assert run(detector, window)["score"][:, 40:].min() > 2


def test_a_history_that_hardly_moves_makes_one_class_without_directions() -> None:
    values = np.zeros((400, 1), np.float32)
    values[200] = 1
    detector = CMDML.fit(history(values), short_timing(), seed=0, steps=5)
    quiet = run(detector, np.zeros((1, 64, 1), np.float32))
    assert np.all(quiet["turn_deg"] == -1)
    assert quiet["score"].max() < 2


def test_a_short_history_gets_fewer_classes() -> None:
    detector = CMDML.fit(history(sines(200)), short_timing(), seed=0, steps=5)
    assert 1 <= len(detector.means) <= 200 // 32


def test_an_untrained_net_is_a_detector_too() -> None:
    detector = CMDML.fit(history(sines(400)), short_timing(), seed=0, steps=0)
    window = sines(400)[None, :64]
    assert np.isfinite(run(detector, window)["score"]).all()


@pytest.mark.parametrize(
    ("options", "key"),
    [({"steps": -1}, "steps"), ({"classes": 0}, "classes"), ({"effort": 20.0}, "effort"),
     ({"dimension": 2}, "dimension"), ({"hidden": 0}, "hidden")],
)  # fmt: skip
def test_options_out_of_range_are_refused(options: dict, key: str) -> None:
    with pytest.raises(ConfigError, match=f"cmdml.{key}:"):
        CMDML.fit(history(sines(400)), short_timing(), seed=0, **options)


@pytest.mark.parametrize(
    ("window", "stretch"), [(64, 32), (176, 32), (184, 64), (360, 64), (368, 128), (1024, 256)]
)
def test_a_stretch_is_about_a_quarter_of_the_window(window: int, stretch: int) -> None:
    timing = Timing(step_ns=1, window=window, hop=1, delay=8, smoothing=1, period=16)
    settings = CMDMLSettings(1, timing, 4)
    assert settings.stretch == stretch
    # The newest quarter, which is all that a stream uses, always has a direction.
    assert 2 * stretch - 16 <= window - window // 4


def test_a_window_without_room_for_a_stretch_is_refused() -> None:
    timing = Timing(step_ns=1, window=56, hop=1, delay=8, smoothing=1, period=16)
    with pytest.raises(ConfigError, match="window: 56"):
        CMDMLSettings(1, timing, 4)


def untrained() -> tuple[MetricSpace, Pool]:
    rng = np.random.default_rng(0)
    values = sines(1200, channels=2)
    segments = [Segment(values, np.ones_like(values))]
    pool = Pool.draw(segments, robust_scale(segments), short_timing(), 6, rng)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MetricSpace(CMDMLSettings(2, short_timing(), pool.classes)), pool


def test_the_triplet_loss_of_an_untrained_net_is_positive_and_has_a_gradient() -> None:
    space, pool = untrained()
    rng = np.random.default_rng(1)
    with torch.no_grad():
        space.centres.zero_()
    loss = loss_of(space, pool, np.arange(48), rng)
    # With all centres at 0 pull and push are constants: 1 and M for each pair.
    rest = 1.0 + 0.02 * pool.classes * (pool.classes - 1)
    assert loss.item() > rest + 0.05
    loss.backward()
    for embedding in space.embeddings:
        for name, parameter in embedding.named_parameters():
            assert parameter.grad is not None
            assert parameter.grad.abs().max() > 1e-6, name


def test_the_nearest_semi_hard_negative_is_chosen() -> None:
    anchor, positive = torch.zeros(1, 2), torch.tensor([[0.5, 0.0]])  # d(a,p) = 0.25
    negatives = torch.tensor([[0.1, 0.0], [0.6, 0.0], [0.55, 0.0], [2.0, 0.0]])
    allowed = torch.ones(1, 4, dtype=torch.bool)
    chosen = hardest_negatives(anchor, positive, negatives, allowed, margin=0.4)
    assert chosen.negative.item() == pytest.approx(0.55**2)
    assert triplet_loss(chosen, 0.4).item() == pytest.approx(0.25 - 0.55**2 + 0.4)


def test_without_a_semi_hard_negative_the_hardest_is_chosen() -> None:
    anchor, positive = torch.zeros(1, 2), torch.tensor([[0.5, 0.0]])
    negatives = torch.tensor([[0.3, 0.0], [0.1, 0.0], [2.0, 0.0]])
    allowed = torch.tensor([[True, False, True]])
    chosen = hardest_negatives(anchor, positive, negatives, allowed, margin=0.4)
    assert chosen.negative.item() == pytest.approx(0.09)


def test_an_anchor_without_negatives_does_not_count() -> None:
    anchors, positives = torch.zeros(2, 2), torch.ones(2, 2)
    negatives = torch.ones(1, 2)
    allowed = torch.tensor([[True], [False]])
    chosen = hardest_negatives(anchors, positives, negatives, allowed, margin=0.3)
    assert chosen.valid.tolist() == [1, 0]
    assert triplet_loss(chosen, 0.3).item() == pytest.approx(0.3)
    none = hardest_negatives(anchors, positives, negatives, allowed & False, margin=0.3)
    assert triplet_loss(none, 0.3).item() == 0


def test_centres_are_pulled_by_their_class_and_pushed_by_each_other() -> None:
    centres = torch.tensor([[0.0, 0.0], [0.6, 0.0], [3.0, 0.0]])
    assert centre_push(centres, 1.0).item() == pytest.approx(2 * (1 - 0.36))
    assert centre_push(centres[:1], 1.0).item() == 0
    sources = torch.ones(2, 5, 2)
    assert centre_pull(sources, centres[:2]).item() == pytest.approx((2 + 1.16) / 2)


def test_clusters_are_found_and_equal_stretches_make_one() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.array([[0, 0], [9, 0], [0, 9]], np.float32), 30, axis=0)
    labels = cluster(groups + rng.normal(0, 0.1, groups.shape).astype(np.float32), 3, rng)
    assert len(np.unique(labels)) == 3
    assert all(len(np.unique(part)) == 1 for part in labels.reshape(3, 30))
    assert cluster(np.ones((20, 4), np.float32), 5, rng).max() == 0
    assert cluster(groups, 8, rng).max() == 2


def test_the_spectrum_is_the_dft() -> None:
    rng = np.random.default_rng(0)
    samples = torch.from_numpy(rng.standard_normal((2, 3, 4, 32)).astype(np.float32))
    spectrum = features_of(samples, torch.zeros(2, 3, 4, 1), cosines_and_sines())[3]
    power = torch.fft.rfft(samples, dim=-1).abs().square()[..., 1:] / 32
    torch.testing.assert_close(spectrum, torch.log(1 + power), rtol=1e-4, atol=1e-5)


def test_every_modality_has_the_declared_size() -> None:
    samples = torch.zeros(1, 1, 2, 32)
    found = features_of(samples, torch.zeros(1, 1, 2, 1), cosines_and_sines())
    assert [part.shape[-1] for part in found] == list(MODALITIES.values())
    assert all(torch.isfinite(part).all() for part in found)


def test_stretches_end_at_each_patch() -> None:
    x = torch.arange(12.0).reshape(1, 1, 6, 2)
    found = Stretches(6, 3)(x)
    assert found.shape == (1, 1, 4, 3, 2)
    torch.testing.assert_close(found[0, 0, 1], x[0, 0, 1:4])


def test_rounding_cannot_decide_a_score_where_two_classes_are_equally_near() -> None:
    space = MetricSpace(CMDMLSettings(1, short_timing(), 3)).eval()
    between = torch.zeros(1, 1, 32)
    between[..., 0] = 0.7
    with torch.no_grad():
        space.centres.zero_()
        space.centres[0, :2] = torch.tensor([0.5, 0.5])
        space.centres[1, :2] = torch.tensor([0.5, -0.5])
        space.centres[2, 2] = 5.0
        shares = []
        for side in (-1e-6, 1e-6):
            between[..., 1] = side
            shares.append(space.nearest(between)[0, 0])
        torch.testing.assert_close(shares[0], shares[1], rtol=0, atol=1e-3)
        between[..., 1] = 0.5
        torch.testing.assert_close(space.nearest(between)[0, 0], torch.tensor([1.0, 0.0, 0.0]))


def related(points: int, seed: int) -> np.ndarray:
    """Two channels that move together, and one on its own; f32[points, 3]."""
    rng = np.random.default_rng(seed)
    walk = np.convolve(rng.normal(0, 1, points + 7), np.ones(8) / 8**0.5, "valid")
    columns = [walk, walk + rng.normal(0, 0.1, points), rng.normal(0, 1, points)]
    return np.stack(columns, axis=1).astype(np.float32)


def fitted_state(*, moving: bool) -> JointState:
    state = JointState(3, 8, 4, moving=moving)
    batches = [
        (torch.from_numpy(related(64 * 40, seed).reshape(40, 64, 3)), torch.ones(40, 64, 3))
        for seed in (0, 1)
    ]
    state.estimate(batches[:1], batches[1:])
    return state


@pytest.mark.parametrize("moving", [False, True])
def test_a_state_in_which_channels_part_is_far_from_the_history(moving: bool) -> None:
    state = fitted_state(moving=moving)
    normal = torch.from_numpy(related(640, 5).reshape(10, 64, 3))
    seen = torch.ones_like(normal)
    usual = state(normal, seen)
    together, apart = normal.clone(), normal.clone()
    together[:, :, :2] += 1.0
    apart[:, :, 0] += 1.0
    apart[:, :, 1] -= 1.0
    length = np.sqrt(3)
    assert usual.square().sum(dim=1).sqrt().median() < length
    far = state(apart, seen)
    assert far.median() > 1.5 * state(together, seen).median()
    assert far[:, :2].mean() > 2 * far[:, 2].mean()


def test_a_channel_that_is_not_seen_has_no_state_and_no_say() -> None:
    state = fitted_state(moving=True)
    normal = torch.from_numpy(related(64, 5)[None])
    seen = torch.ones_like(normal)
    seen[:, :, 1] = 0
    wild = normal.clone()
    wild[:, :, 1] = 9.0
    assert torch.equal(state(normal, seen), state(wild, seen))
    unseen = torch.zeros_like(seen)
    assert torch.all(state(wild, unseen) == 0)


def test_a_channel_that_the_history_never_saw_has_no_state() -> None:
    state = JointState(3, 8, 4, moving=True)
    values, seen = torch.from_numpy(related(64 * 40, 0).reshape(40, 64, 3)), torch.ones(40, 64, 3)
    values[:, :, 2], seen[:, :, 2] = 0, 0
    state.estimate([(values, seen)], [(values, seen)])
    appears = torch.from_numpy(related(64, 5)[None])
    assert torch.all(state(appears, torch.ones_like(appears))[:, 2] == 0)


def test_one_channel_has_no_joint_state() -> None:
    timing = short_timing()
    assert not CMDML(CMDMLSettings(1, timing, 2)).states
    assert len(CMDML(CMDMLSettings(2, timing, 2)).states) == 2


def test_a_class_is_told_by_what_sets_it_apart() -> None:
    shapes = np.zeros((40, 32, 2), np.float32)
    shapes[:10, :, 0] = 3.0
    shapes[10:20, :, 1] = np.linspace(-2, 2, 32)
    labels = np.repeat([0, 1, 2], [10, 10, 20])
    told = behaviours(shapes, labels, ["flow", "temp"])
    assert told[0] == "25% of the history; flow high"
    assert "temp rising, lively" in told[1] and "flow" not in told[1]
    assert told[2].endswith("flow low, slightly")
    assert behaviours(shapes, np.zeros(40, np.int64), ["flow", "temp"])[0].endswith("as usual")
    assert "flow" not in behaviours(shapes[:, :, :1], labels, ["flow"])[0]
