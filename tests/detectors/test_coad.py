"""CoAD's own parts."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from oracles.histories import history, short_timing, sines

from edge_tsad.detectors.coad import CoAD, CoADSettings
from edge_tsad.detectors.coad_fit import FitOptions
from edge_tsad.detectors.encoders import ConvEncoder
from edge_tsad.detectors.missing import bridge
from edge_tsad.detectors.spectrum import short_time_spectrum
from edge_tsad.errors import ConfigError
from edge_tsad.registry import BACKENDS, EXPORTERS
from edge_tsad.runtime.scorer import StreamScorer
from edge_tsad.training.distortion import distort
from edge_tsad.training.torch_backend import TorchBackend
from edge_tsad.training.windows import WindowSampler, segments_to_fit
from edge_tsad.types import Cells

LOSSES: list[float] = []


@cache
def net() -> CoAD:
    """Three channels, fitted well enough to tell."""
    series = history(sines(1200, channels=3))
    return CoAD.fit(
        series,
        short_timing(),
        seed=0,
        progress=lambda step, steps, loss: LOSSES.append(loss),
        steps=150,
        batch=16,
    )


def normal_windows(count: int = 24) -> np.ndarray:
    values = sines(1200, channels=3, seed=9)
    return np.stack([values[start : start + 64] for start in range(0, count * 40, 40)])


def score(window: np.ndarray, observed: np.ndarray | None = None) -> dict[str, np.ndarray]:
    known = np.ones_like(window) if observed is None else observed
    fitted = net()
    with torch.inference_mode():
        out = fitted(torch.from_numpy(window), torch.from_numpy(known))
    return {name: tensor.numpy() for name, tensor in out.items()}


def test_the_loss_falls() -> None:
    net()
    assert np.mean(LOSSES[-15:]) < 0.3 * np.mean(LOSSES[:15])


def test_distorted_points_score_higher_than_normal_ones() -> None:
    distorted = distort(normal_windows(), 16, np.random.default_rng(3))
    changed = distorted.changed.any(axis=2)
    found = score(distorted.values)["score"]
    normal = score(normal_windows())["score"]
    ranks = np.searchsorted(np.sort(normal.ravel()), found[changed]) / normal.size
    assert ranks.mean() > 0.8


def test_expected_is_the_normal_signal_in_engineering_units() -> None:
    window = normal_windows()
    swing = np.ptp(window, axis=(0, 1))
    error = np.abs(score(window)["expected"] - window).mean(axis=(0, 1))
    assert np.all(error < 0.15 * swing)


def test_only_what_is_beyond_the_usual_counts() -> None:
    window = torch.from_numpy(normal_windows())
    observed = torch.ones_like(window)
    observed[:, :10, 1] = 0
    fitted = net()
    with torch.inference_mode():
        terms = fitted.terms(window, observed)
        shifted = fitted.terms(window + fitted.scale, observed)
    expected = (terms.residual - fitted.usual_residual).clamp(min=0) * observed
    torch.testing.assert_close(terms.residual_excess, expected)
    expected = (terms.probability - fitted.usual_probability).clamp(min=0)
    torch.testing.assert_close(terms.probability_excess, expected)
    # A level that is wrong is no wrong shape; this term sees it.
    assert shifted.residual_excess[observed > 0].mean() > 0.5


def test_the_usual_is_what_a_hundredth_of_the_history_exceeds() -> None:
    segments = segments_to_fit(history(sines(1200, channels=3)), 64)
    windows, observed = WindowSampler(segments, 64).spread(256)
    fitted = net()
    with torch.inference_mode():
        terms = fitted.terms(torch.from_numpy(windows), torch.from_numpy(observed))
    assert (terms.probability_excess > 0).float().mean().item() == pytest.approx(0.01, abs=0.005)
    shares = (terms.residual_excess > 0).float().mean(dim=(0, 1))
    assert shares.tolist() == pytest.approx([0.01] * 3, abs=0.005)


def test_the_channel_that_deviates_has_the_greatest_part() -> None:
    for channel in range(3):
        window = normal_windows(4)
        window[:, 30:34, channel] += 2.0 * (channel + 1)
        parts = score(window)["channel_score"][:, 30:34].sum(axis=1)
        assert np.all(parts.argmax(axis=1) == channel)


def test_the_parts_of_the_channels_sum_up_to_the_score() -> None:
    out = score(normal_windows())
    np.testing.assert_allclose(out["channel_score"].sum(axis=2), out["score"], rtol=1e-5)


def test_a_missing_channel_and_a_gap_are_nothing_unusual() -> None:
    window = normal_windows()
    usual = np.quantile(score(window)["score"], 0.99)
    missing, gap = np.ones_like(window), np.ones_like(window)
    missing[:, :, 1] = 0
    gap[:, 20:36] = 0
    for observed in (missing, gap):
        assert np.median(score(window, observed)["score"]) < usual


def streamed(values: np.ndarray, observed: np.ndarray | None = None) -> np.ndarray:
    known = np.ones_like(values) if observed is None else observed
    scorer = StreamScorer(short_timing(), values.shape[1], TorchBackend(net()))
    return scorer.extend(Cells(np.arange(len(values)), values * known, known)).score


def test_a_channel_that_falls_silent_weighs_far_less_than_a_fault_and_blinds_no_other() -> None:
    values, observed = sines(1200, channels=3, seed=11), np.ones((1200, 3), np.float32)
    observed[500:, 1] = 0
    silent = streamed(values, observed)
    assert np.isfinite(silent).all()
    values[900:912, 0] += 3
    faulty = streamed(values, observed)
    assert faulty.argmax() + 63 in range(896, 916)
    assert silent.max() < 0.27 * faulty.max()


def test_folding_the_normalisation_changes_nothing() -> None:
    torch.manual_seed(0)
    made = CoAD(CoADSettings(1, short_timing()))
    window = torch.randn(16, 64, 1)
    made.train()
    for _ in range(5):
        made.judge(window, torch.ones(16, 8, 1))
        made.reconstruct(window, torch.ones(16, 8, 1), torch.rand(16, 8))
    made.eval()
    with torch.inference_mode():
        before = made(window, torch.ones_like(window))
        after = made.fold()(window, torch.ones_like(window))
    for name, tensor in before.items():
        torch.testing.assert_close(tensor, after[name], rtol=1e-4, atol=1e-4)


def test_the_spectrum_is_torch_stft() -> None:
    x = torch.randn(3, 40, 1)
    complex_bins = torch.stft(
        x[:, :, 0], n_fft=4, hop_length=1, center=True, return_complex=True,
        window=torch.ones(4), normalized=True,
    )[:, :, :40]  # fmt: skip
    bins = torch.view_as_real(complex_bins)
    expected = torch.stack(
        [bins[:, 0, :, 0], bins[:, 1, :, 0], bins[:, 1, :, 1], bins[:, 2, :, 0]], dim=2
    )
    torch.testing.assert_close(short_time_spectrum(x), expected, rtol=1e-5, atol=1e-5)
    assert bins[:, 0, :, 1].abs().max() < 1e-6
    assert bins[:, 2, :, 1].abs().max() < 1e-6


def test_missing_points_are_bridged_from_both_sides() -> None:
    x = torch.tensor([9.0, 1.0, 9.0, 3.0, 9.0, 9.0]).reshape(1, 6, 1)
    observed = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 0.0]).reshape(1, 6, 1)
    bridged = bridge(x, observed)[0, :, 0].tolist()
    assert bridged == [1.0, 1.0, 2.0, 3.0, 3.0, 3.0]


def test_nothing_observed_is_bridged_by_zeros_and_all_observed_is_left_alone() -> None:
    x = torch.randn(2, 40, 3)
    assert torch.equal(bridge(x, torch.zeros_like(x)), torch.zeros_like(x))
    assert torch.equal(bridge(x, torch.ones_like(x)), x)


@pytest.mark.parametrize("length", [3, 8, 40])
def test_the_fast_convolution_and_its_gradient_are_the_plain_one(length: int) -> None:
    torch.manual_seed(0)
    encoder = ConvEncoder(6).double()
    for block in encoder.blocks:
        block.norm = torch.nn.Identity()
    results = []
    for training in (True, False):
        x = torch.linspace(-1, 1, 2 * length * 6).double().reshape(2, length, 6)
        x.requires_grad_()
        encoder.train(training)
        encoder.zero_grad()
        encoder(x).square().sum().backward()
        weights = [parameter.grad.clone() for parameter in encoder.parameters()]
        results.append((encoder(x).detach(), x.grad, *weights))
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain)


def test_int8_weights_fit_into_100_kb() -> None:
    made = CoAD(CoADSettings(1, short_timing(window=616)))
    assert made.parameter_count() < 100_000


def test_the_papers_encoder_fits_exports_and_is_found_again() -> None:
    chosen = {"encoder": "gru", "width": 6, "reconstruction_width": 4, "steps": 2, "batch": 2}
    fitted = CoAD.fit(history(sines(300)), short_timing(), seed=0, **chosen)
    again = CoAD.from_settings(fitted.settings())
    again.load_state_dict(fitted.state_dict())
    windows = np.stack([sines(64, seed=seed) for seed in range(3)])
    known = np.ones_like(windows)
    pytest.importorskip("onnxruntime")
    exported = EXPORTERS["onnx"]().convert(fitted)
    found = BACKENDS["onnxruntime"](exported, threads=1).score(windows, known)["score"]
    with torch.inference_mode():
        for made in (fitted, again):
            truth = made(torch.from_numpy(windows), torch.from_numpy(known))["score"].numpy()
            np.testing.assert_allclose(found, truth, rtol=1e-3, atol=1e-4)


def test_the_papers_encoder_is_as_wide_as_in_its_code() -> None:
    shape = FitOptions.of({"encoder": "gru"}).shape
    assert shape == ("gru", 144, 24)
    assert CoAD(CoADSettings(1, short_timing(), *shape)).encoder.recurrent.num_layers == 2
    assert FitOptions.of({}).shape == ("conv", 48, 24)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="encoder"):
        CoAD(CoADSettings(1, short_timing(), encoder="none"))
    with pytest.raises(ConfigError, match="width"):
        CoADSettings(1, short_timing(), width=0)
    with pytest.raises(ConfigError, match="multiple of 8"):
        CoADSettings(1, short_timing(window=65))
