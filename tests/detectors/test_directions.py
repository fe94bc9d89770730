"""Directions without a sign: κ, quantiles, and eigenvectors by squaring."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from edge_tsad.detectors.directions import (
    LARGEST_KAPPA,
    axial_distribution,
    bessel_ratio,
    concentration,
    conformal_quantile,
    fit_axes,
    mixture_quantile,
)
from edge_tsad.detectors.principal import PrincipalDirection

DIMENSIONS = (3, 4, 8, 32, 64, 128)


def log_normaliser(kappa: float, dimension: int) -> float:
    """log ∫ exp(κ (cos θ − 1)) sin^{p−2} θ dθ over [0, π], without any Bessel function."""
    theta = np.linspace(1e-7, np.pi - 1e-7, 400_001)
    value = kappa * (np.cos(theta) - 1) + (dimension - 2) * np.log(np.sin(theta))
    top = value.max()
    return float(top + np.log(np.trapezoid(np.exp(value - top), theta)))


def maximum_likelihood(resultant: float, dimension: int) -> float:
    """κ that maximises κ R̄ − log ∫ exp(κ μᵀv) dv, numerically."""

    def loss(log_kappa: float) -> float:
        kappa = float(np.exp(log_kappa))
        return log_normaliser(kappa, dimension) + kappa - kappa * resultant

    guess = np.log(resultant * dimension / (1 - resultant**2))
    found = minimize_scalar(loss, bounds=(guess - 3, guess + 3), method="bounded",
                            options={"xatol": 1e-9})  # fmt: skip
    return float(np.exp(found.x))


def sample(kappa: float, dimension: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """vMF directions around the first axis, by Wood's (1994) rejection."""
    b = (dimension - 1) / (2 * kappa + np.sqrt(4 * kappa**2 + (dimension - 1) ** 2))
    x = (1 - b) / (1 + b)
    c = kappa * x + (dimension - 1) * np.log(1 - x**2)
    kept: list[np.ndarray] = []
    while sum(map(len, kept)) < count:
        z = rng.beta((dimension - 1) / 2, (dimension - 1) / 2, 4 * count)
        t = (1 - (1 + b) * z) / (1 - (1 - b) * z)
        good = kappa * t + (dimension - 1) * np.log(1 - x * t) - c >= np.log(rng.random(len(t)))
        kept.append(t[good])
    t = np.concatenate(kept)[:count]
    across = rng.standard_normal((count, dimension - 1))
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    return np.concatenate([t[:, None], np.sqrt(1 - t**2)[:, None] * across], axis=1)


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("resultant", [0.05, 0.3, 0.6, 0.86, 0.97])
def test_kappa_is_the_numerical_maximum_of_the_likelihood(dimension: int, resultant: float) -> None:
    exact = maximum_likelihood(resultant, dimension)
    assert concentration(resultant, dimension) == pytest.approx(exact, rel=2e-4)


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("kappa", [0.01, 1.0, 40.0, 900.0])
def test_the_ratio_of_bessel_functions_obeys_their_recurrence(dimension: int, kappa: float) -> None:
    """I_{ν−1} − I_{ν+1} = (2ν/κ) I_ν, divided by I_ν: 1/A_p − A_{p+2} = p/κ."""
    ratio, next_ratio = bessel_ratio(kappa, dimension), bessel_ratio(kappa, dimension + 2)
    assert 1 / ratio - next_ratio == pytest.approx(dimension / kappa, rel=1e-9)


def test_the_ratio_is_coth_in_three_dimensions() -> None:
    for kappa in (0.1, 2.0, 30.0):
        exact = 1 / np.tanh(kappa) - 1 / kappa
        assert bessel_ratio(kappa, 3) == pytest.approx(exact, rel=1e-12)


def test_kappa_of_no_direction_and_of_one_alone() -> None:
    assert concentration(0.0, 8) == 0
    assert bessel_ratio(0.0, 8) == 0
    assert concentration(1.0, 8) == LARGEST_KAPPA
    assert concentration(1 - 1e-12, 8) == LARGEST_KAPPA


@pytest.mark.parametrize(("dimension", "kappa"), [(3, 2.0), (8, 20.0), (32, 60.0), (128, 300.0)])
def test_the_exact_quantile_is_that_of_samples(dimension: int, kappa: float) -> None:
    rng = np.random.default_rng(dimension)
    cosine = np.abs(sample(kappa, dimension, 200_000, rng)[:, 0])
    for probability in (0.01, 0.1, 0.5):
        exact = mixture_quantile([kappa], [1.0], dimension, probability)
        below = float((cosine < exact).mean())
        assert below == pytest.approx(probability, abs=5 * np.sqrt(probability / 200_000))


@pytest.mark.parametrize("dimension", [2, 3, 32])
@pytest.mark.parametrize("kappa", [0.0, 1e-3, 5.0, 1e5])
def test_the_distribution_runs_from_0_to_1(dimension: int, kappa: float) -> None:
    points, below = axial_distribution(kappa, dimension)
    assert np.all(np.diff(points) >= 0)
    assert np.all(np.diff(below) >= 0)
    assert below[0] == 0
    assert below[-1] == 1
    assert points[0] >= 0
    assert points[-1] <= 1


def test_without_concentration_in_three_dimensions_the_cosine_is_uniform() -> None:
    assert mixture_quantile([0.0], [1.0], 3, 0.3) == pytest.approx(0.3, abs=1e-5)


def test_a_mixture_lies_between_its_components() -> None:
    alone = [mixture_quantile([kappa], [1.0], 16, 0.05) for kappa in (10.0, 100.0)]
    mixed = mixture_quantile([10.0, 100.0], [1.0, 3.0], 16, 0.05)
    assert alone[0] < mixed < alone[1]


def test_estimates_do_not_change_under_random_flips_of_sign() -> None:
    rng = np.random.default_rng(0)
    v = sample(25.0, 8, 500, rng)
    fit = fit_axes(v)
    assert fit.resultant > 0.8
    for _ in range(5):
        flipped = fit_axes(v * rng.choice([-1.0, 1.0], (len(v), 1)))
        assert abs(float(fit.mean @ flipped.mean)) == pytest.approx(1, abs=1e-12)
        assert flipped.resultant == pytest.approx(fit.resultant, abs=1e-12)
        assert flipped.kappa == pytest.approx(fit.kappa, rel=1e-9)
    assert fit.kappa == pytest.approx(25.0, rel=0.1)


def test_weights_count_like_repeated_directions() -> None:
    v = sample(10.0, 5, 60, np.random.default_rng(1))
    weights = np.arange(60) % 3
    repeated = fit_axes(np.repeat(v, weights, axis=0))
    assert fit_axes(v, weights).kappa == pytest.approx(repeated.kappa, rel=1e-9)


def anisotropic(count: int, rng: np.random.Generator) -> np.ndarray:
    """Directions that spread far along one axis and hardly along the 14 others."""
    v = np.concatenate([np.ones((count, 1)), rng.standard_normal((count, 15)) * 0.05], axis=1)
    v[:, 1] *= 16
    return v / np.linalg.norm(v, axis=1, keepdims=True) * rng.choice([-1.0, 1.0], (count, 1))


def test_false_alarms_on_anisotropic_directions() -> None:
    """The isotropic threshold for 1 % is far off; the larger of it and the conformal one holds."""
    rng = np.random.default_rng(2)
    fit = fit_axes(anisotropic(2000, rng))
    held_out, fresh = (1 - np.abs(anisotropic(count, rng) @ fit.mean) for count in (2000, 50_000))
    isotropic = 1 - mixture_quantile([fit.kappa], [1.0], 16, 0.01)
    shipped = max(isotropic, conformal_quantile(held_out, 0.01))
    assert (fresh > isotropic).mean() > 0.05
    assert (fresh > shipped).mean() < 0.015


def test_the_conformal_quantile_counts_the_new_score_too() -> None:
    assert conformal_quantile(np.arange(1, 100), 0.01) == 99
    assert conformal_quantile(np.arange(1, 1000), 0.01) == 990
    assert conformal_quantile([3.0, 1.0], 0.01) == 3.0


def principal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found = PrincipalDirection(x.shape[-2])(torch.from_numpy(x.astype(np.float32)))
    return tuple(part.numpy() for part in found)  # type: ignore[return-value]


@pytest.mark.parametrize(("rows", "dimension"), [(2, 32), (4, 32), (8, 32), (32, 32), (32, 64)])
def test_the_direction_is_the_first_eigenvector(rows: int, dimension: int) -> None:
    rng = np.random.default_rng(rows)
    x = rng.standard_normal((300, rows, dimension)) * 10 ** rng.uniform(-2, 2, (300, 1, 1))
    x[:, :, 0] *= rng.uniform(1, 6, (300, 1))
    centred = x - x.mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(np.einsum("bwp,bwq->bpq", centred, centred))
    gap = (values[:, -1] - values[:, -2]) / values[:, -1]
    direction, lower, variance = principal(x)
    cosine = np.abs(np.sum(direction * vectors[:, :, -1], axis=1))
    assert cosine[gap > 0.05].min() > 0.99999
    assert np.all(lower <= gap + 1e-4)
    assert np.all(lower >= gap - 0.15)
    np.testing.assert_allclose(variance, values.sum(axis=1) / rows, rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(direction, axis=1), 1, rtol=1e-5)


def test_rows_in_opposite_places_do_not_cancel() -> None:
    x = np.array([[[1.0, 2.0, 2.0], [-1.0, -2.0, -2.0]]])
    direction, gap, _ = principal(x)
    np.testing.assert_allclose(np.abs(direction[0]), [1 / 3, 2 / 3, 2 / 3], rtol=1e-5)
    assert gap[0] > 0.99


def test_equal_eigenvalues_have_no_gap() -> None:
    x = np.array([[[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]])
    direction, gap, _ = principal(x)
    assert np.isfinite(direction).all()
    assert gap[0] < 0.01


def test_nearly_equal_eigenvalues_have_a_small_gap() -> None:
    x = np.array([[[1.0, 0, 0], [-1, 0, 0], [0, 0.98, 0], [0, -0.98, 0]]])
    _, gap, _ = principal(x)
    assert gap[0] < 0.05


@pytest.mark.parametrize("level", [0.0, 1.0, 1e-12])
def test_what_stands_still_has_no_direction_but_is_finite(level: float) -> None:
    direction, gap, variance = principal(np.full((2, 8, 16), level))
    assert np.isfinite(direction).all()
    assert np.isfinite(gap).all()
    assert variance.max() < 1e-10
