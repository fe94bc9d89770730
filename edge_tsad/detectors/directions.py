"""Directions without a sign: von Mises–Fisher components, their exact and empirical quantiles.

A principal component is an axis: v and −v are the same direction. All here holds for axes, and is
computed offline; a device only multiplies with the means. p is the dimension, μ a unit vector.
Banerjee et al., JMLR 6 (2005) for the estimate of κ, Sra, Comput. Stat. 27 (2012) for its
refinement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "LARGEST_KAPPA",
    "AxialFit",
    "axial_distribution",
    "bessel_ratio",
    "concentration",
    "conformal_quantile",
    "fit_axes",
    "mixture_quantile",
]

Float64 = npt.NDArray[np.float64]

LARGEST_KAPPA = 1e5
"""κ of directions that are equal but for rounding; the ratio of Bessel functions takes κ steps."""

NEWTON_STEPS = 2
CELLS = 4096
"""Cells of the quadrature; the error of a quantile is below 1e-6 with half as many."""

NEGLIGIBLE = 50.0
"""The density below exp(−50) of its maximum is left out of the quadrature."""


@dataclass(frozen=True, slots=True)
class AxialFit:
    """One component: ``mean`` f64[p] of length 1, mean resultant length R̄ and κ."""

    mean: Float64
    resultant: float
    kappa: float


def fit_axes(directions: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> AxialFit:
    """A component of f64[n, p] unit vectors of any sign, n ≥ 1, with ``weights`` f64[n] ≥ 0.

    μ₀ is the top eigenvector of Σ w v vᵀ, which no sign can change; then v ← sign(μ₀ᵀv) v; then μ
    is the direction of the resultant Σ w v and R̄ its length over Σ w.
    """
    v = np.asarray(directions, np.float64)
    w = np.ones(len(v)) if weights is None else np.asarray(weights, np.float64)
    axis = np.linalg.eigh((v * w[:, None]).T @ v)[1][:, -1]
    # The axis' own sign is arbitrary too: its largest coordinate is made positive.
    axis = axis * np.sign(axis[np.argmax(np.abs(axis))])
    aligned = np.where(v @ axis < 0, -1.0, 1.0)[:, None] * v
    resultant = w @ aligned
    length = float(np.linalg.norm(resultant))
    mean_length = min(length / float(w.sum()), 1.0)
    return AxialFit(resultant / length, mean_length, concentration(mean_length, v.shape[1]))


def bessel_ratio(kappa: float, dimension: int) -> float:
    """A_p(κ) = I_{p/2}(κ) / I_{p/2−1}(κ) by Gauss' continued fraction, evaluated from its end.

    The functions themselves underflow where p is large and κ small; their ratio does not.
    """
    if kappa <= 0:
        return 0.0
    # From about κ terms on each further one is closer to its limit; 64 more reach the last digit.
    terms = 64 + int(kappa + 8 * math.sqrt(kappa))
    value = 0.0
    square = kappa * kappa
    for term in range(terms, 0, -1):
        value = square / (dimension + 2 * term + value)
    return kappa / (dimension + value)


def concentration(resultant: float, dimension: int) -> float:
    """κ with A_p(κ) = R̄: κ₀ = R̄ (p − R̄²) / (1 − R̄²), then two Newton steps (Sra 2012)."""
    if resultant >= 1:
        return LARGEST_KAPPA
    square = resultant * resultant
    kappa = min(resultant * (dimension - square) / (1 - square), LARGEST_KAPPA)
    for _ in range(NEWTON_STEPS if 0 < kappa < LARGEST_KAPPA else 0):
        ratio = bessel_ratio(kappa, dimension)
        slope = 1 - ratio * ratio - (dimension - 1) / kappa * ratio
        kappa = min(max(kappa - (ratio - resultant) / slope, 0.0), LARGEST_KAPPA)
    return kappa


def axial_distribution(kappa: float, dimension: int) -> tuple[Float64, Float64]:
    """|μᵀv| as f64[m] increasing and its distribution function there, from 0 to 1.

    The density of t = |μᵀv| is ∝ cosh(κt) (1 − t²)^{(p−3)/2} on [0, 1]; with t = cos θ it is
    ∝ cosh(κ cos θ) sin^{p−2} θ, without the pole that p = 2 has at t = 1. The trapezoidal rule over
    the θ that matter; p ≥ 2.
    """
    whole = np.linspace(0, np.pi / 2, CELLS + 1)
    # A sharp peak lies within the first of these cells, so that they get finer towards 0.
    coarse = np.concatenate([[0.0], np.geomspace(1e-6, np.pi / 2, CELLS)])
    log_density = _log_density(coarse, kappa, dimension)
    matters = np.flatnonzero(log_density > log_density.max() - NEGLIGIBLE)
    low = coarse[max(matters[0] - 1, 0)]
    high = coarse[min(matters[-1] + 1, CELLS)]
    theta = low + (high - low) * whole / whole[-1]
    log_density = _log_density(theta, kappa, dimension)
    density = np.exp(log_density - log_density.max())
    mass = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return np.cos(theta)[::-1], 1 - (mass / mass[-1])[::-1]


def _log_density(theta: Float64, kappa: float, dimension: int) -> Float64:
    c = np.cos(theta)
    # log cosh without overflow; κ (c − 1) instead of κ c only shifts the logarithm.
    value = kappa * (c - 1) + np.log1p(np.exp(-2 * kappa * c))
    if dimension > 2:
        with np.errstate(divide="ignore"):
            value = value + (dimension - 2) * np.log(np.sin(theta))
    return np.asarray(value)


def mixture_quantile(
    kappas: npt.ArrayLike, shares: npt.ArrayLike, dimension: int, probability: float
) -> float:
    """The t with P(|μᵀv| < t) = ``probability``, where v comes from one of several components.

    From component k in ``shares``[k] of the cases; μ is then the mean of k. The maximum over the
    means is at least the |μᵀv| of v's own component, so that a threshold on
    the maximum alarms at most as often as this says.
    """
    kappas, shares = np.atleast_1d(kappas), np.atleast_1d(shares)
    curves = [axial_distribution(float(kappa), dimension) for kappa in kappas]
    points = np.unique(np.concatenate([t for t, _ in curves]))
    mixed = sum(
        share * np.interp(points, t, below, left=0.0, right=1.0)
        for share, (t, below) in zip(shares / shares.sum(), curves, strict=True)
    )
    return float(np.interp(probability, mixed, points))


def conformal_quantile(scores: npt.ArrayLike, probability: float) -> float:
    """The ⌈(n + 1)(1 − α)⌉-th smallest of n ≥ 1 scores, α = ``probability``.

    A new exchangeable score exceeds it with probability ≤ α. Where n is too small for α it is the
    largest score, which a new one exceeds with probability ≤ 1/(n + 1).
    """
    ordered = np.sort(np.asarray(scores, np.float64).ravel())
    rank = math.ceil((len(ordered) + 1) * (1 - probability))
    return float(ordered[min(rank, len(ordered)) - 1])
