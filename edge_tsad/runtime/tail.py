"""The tail of alert openings that a model file carries, as its draws describe it.

Above a level, openings at a threshold ``x`` are a Poisson process with
``rate · (1 + shape · (x − level) / scale)^(−1/shape)`` openings per point (Coles, *An Introduction
to Statistical Modeling of Extreme Values*, 2001, eq. 4.10 and 7.2). What is known of rate, shape
and scale is a set of draws, made by :mod:`edge_tsad.training.tail`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt

from edge_tsad.decode import Json, decode
from edge_tsad.errors import BundleError

__all__ = ["ENOUGH_PEAKS", "Tail"]

Float64 = npt.NDArray[np.float64]

ENOUGH_PEAKS = 10
"""Independent openings above the level below which no tail is fitted."""
LARGEST = 1e30


@dataclass(frozen=True, slots=True)
class Tail:
    """What calibration knows about alert openings.

    ``median``: of all scores. ``level``: where the tail begins. ``rate``: openings per point above
    it. ``shape`` and ``scale``: medians of the draws, for people. ``points``: calibration points
    that had a score. ``peaks``: the highest thresholds at which 1, 2, … alerts opened, descending.
    ``draws``: equally likely (rate, shape, scale); empty where there is too little for a tail.
    ``cross_fitted``: False where scores are of points that the detector was fitted to.
    ``dispersion``: variance of opening counts over their mean, at least 1. ``shortfall``: points of
    history that are lacking for cross-fitting.

    Raises:
        BundleError: a number is not finite or out of its range.
    """

    median: float
    level: float
    rate: float
    shape: float
    scale: float
    points: int
    peaks: tuple[float, ...] = ()
    draws: tuple[tuple[float, float, float], ...] = field(default=(), repr=False)
    cross_fitted: bool = True
    dispersion: float = 1.0
    shortfall: int = 0

    def __post_init__(self) -> None:
        numbers = [self.median, self.level, self.shape, self.rate, self.scale, self.dispersion]
        numbers += [*self.peaks, *(number for draw in self.draws for number in draw)]
        for number in numbers:
            if not abs(number) <= LARGEST:
                raise BundleError(f"tail: holds {number}; a finite number is needed")
        self._check("points", self.points >= 1)
        self._check("rate", self.rate >= 0)
        self._check("scale", self.scale > 0)
        self._check("dispersion", self.dispersion >= 1)
        self._check("shortfall", self.shortfall >= 0)
        self._check("level", self.level >= self.median)
        for peak, lower in zip(self.peaks, (*self.peaks[1:], self.level), strict=False):
            if peak < lower:
                raise BundleError(f"tail.peaks: {peak} comes before {lower}; they must descend")
        for i, (rate, shape, scale) in enumerate(self.draws):
            if not (rate > 0 and scale > 0 and abs(shape) <= 2):
                raise BundleError(f"tail.draws[{i}]: rate, shape or scale is out of range")

    def _check(self, name: str, good: bool) -> None:
        if not good:
            raise BundleError(f"tail.{name}: {getattr(self, name)} is out of range")

    def to_json(self) -> dict[str, Json]:
        """All fields, as JSON has them."""
        return asdict(self) | {
            "peaks": list(self.peaks),
            "draws": [list(draw) for draw in self.draws],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Tail:
        """The inverse of :meth:`to_json`.

        Raises:
            BundleError: a key is missing or unknown, or a value is of another type or out of range.
        """
        return decode(cls, data, "", BundleError)

    @property
    def highest(self) -> float:
        """The highest threshold at which an alert would have opened; no less than ``median``."""
        return self.peaks[0] if self.peaks else self.level

    @property
    def independent(self) -> float:
        """Openings above the level, those of bouts counted for what they are worth."""
        return len(self.peaks) / self.dispersion

    @property
    def fitted(self) -> bool:
        """Whether the draws may be believed."""
        return self.cross_fitted and bool(self.draws) and self.independent >= ENOUGH_PEAKS

    def rates(self, score: float) -> Float64:
        """Openings per point at a threshold of ``score`` ≥ level: f64, one for each draw."""
        rate, shape, scale = np.array(self.draws, np.float64).T
        excess = (score - self.level) / scale
        return np.asarray(rate * survival(excess, shape), np.float64)

    def quantile(self, rate: float) -> Float64:
        """The threshold for ``rate`` openings per point, at least ``level``: f64, by draw."""
        known, shape, scale = np.array(self.draws, np.float64).T
        power = np.log(np.maximum(known / rate, 1.0))
        small = np.abs(shape) < 1e-9
        steep = np.where(small, 1.0, shape)
        excess = np.where(small, power, np.expm1(steep * power) / steep)
        return np.asarray(self.level + scale * excess, np.float64)


def survival(excess: Float64, shape: Float64) -> Float64:
    """Share of a generalised Pareto distribution of scale 1 that lies above ``excess`` ≥ 0."""
    small = np.abs(shape) < 1e-9
    steep = np.where(small, 1.0, shape)
    inside = np.maximum(1 + steep * excess, 0)
    with np.errstate(divide="ignore"):
        return np.where(small, np.exp(-excess), np.exp(-np.log(inside) / steep))
