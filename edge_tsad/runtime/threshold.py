"""From an alarm budget to a threshold, computed on the gateway from the tail that a file carries.

A budget counts *alert openings by the AlertPolicy*, and so does the :class:`Tail`. Every figure is
a quantile over the tail's draws, so that an interval holds all that calibration leaves open.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from edge_tsad.errors import ConfigError
from edge_tsad.runtime.tail import ENOUGH_PEAKS, Tail
from edge_tsad.types import NANOSECONDS, Timing

__all__ = ["Budget", "CalibrationState", "Tail", "Threshold"]

CalibrationState = Literal["CALIBRATED", "EXTRAPOLATED", "UNCALIBRATED"]

ENOUGH_OPENINGS = 5
"""Openings at or above a threshold from which on it counts as calibrated."""
MARGIN = 0.5
"""The fallback lies this share of (highest − median) above the highest calibration score."""
IN_SAMPLE_MARGIN = 2.0
"""The same where the detector was fitted to what it scored: unseen data scores higher than that."""
LEAST_MARGIN = 0.01
"""… and never less than this share of the highest score: constant scores have no spread."""
SENSITIVITY = (0.1, 10.0)
NONE_SEEN = 3.0
"""No opening in E points says with 95 % that the rate is at most 3/E (−ln 0.05 = 2.996)."""
INTERVAL = (0.05, 0.95)

UNITS_S = {
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
}
BUDGET = re.compile(r"\s*(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*(ms|s|min|h|d|w|pt)\s*")


@dataclass(frozen=True, slots=True)
class Budget:
    """How many alerts may open by chance: ``openings`` in ``points`` of the grid.

    Raises:
        ConfigError: one is not positive and finite, or there is more than one opening per point.
    """

    openings: float
    points: float

    def __post_init__(self) -> None:
        for name in ("openings", "points"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"budget: {value:g} {name} cannot be kept; give more than 0")
        if self.openings > self.points:
            raise ConfigError(
                f"budget: {self.openings:g} openings in {self.points:g} points are more than one "
                "per point; allow fewer openings or a longer span"
            )

    @property
    def rate(self) -> float:
        """Openings per point."""
        return self.openings / self.points

    @classmethod
    def usual(cls, timing: Timing) -> Budget:
        """One opening a week; one in 10,000 points without a rate, or where a week is one point."""
        weekly = timing.has_rate and timing.step_ns < UNITS_S["w"] * NANOSECONDS
        return cls.parse("1/7d" if weekly else "1/10000pt", timing)

    @classmethod
    def parse(cls, text: str, timing: Timing) -> Budget:
        """A budget from text such as ``1/7d``, ``2/24h`` or ``1/10000pt``.

        Raises:
            ConfigError: the text is no budget, or counts time on a grid that has none.
        """
        match = BUDGET.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"budget: {text[:40]!r} is not like 1/7d, 2/24h or 1/10000pt "
                "(openings / span in ms, s, min, h, d, w or pt)"
            )
        openings, span, unit = float(match[1]), float(match[2]), match[3]
        if unit == "pt":
            return cls(openings, span)
        if not timing.has_rate:
            raise ConfigError(
                f"budget: {text[:40]!r} counts time, but the data came without time stamps; "
                "count points, as in 1/10000pt"
            )
        return cls(openings, span * UNITS_S[unit] * NANOSECONDS / timing.step_ns)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold and how far to believe it.

    ``value`` and ``median`` are scores. ``state``: CALIBRATED where at least 5 openings were seen
    at or above ``value``; EXTRAPOLATED where the fitted tail was followed further; UNCALIBRATED
    where there is too little history for a tail, or only scores of points that were fitted to.

    ``rate``: expected openings per point, as likely too high as too low; UNCALIBRATED it is 3 in
    the calibration points, the most that cross-fitting does not rule out. ``interval``: 90 %
    interval of the rate that fresh data of the same kind has; None where nothing can be promised.
    ``needed_points``: more history for the next better state, an estimate; 0 if CALIBRATED.
    ``margin``: UNCALIBRATED: how far ``value`` lies above the highest calibration score, in
    (highest − median); else 0.
    """

    value: float
    median: float
    state: CalibrationState
    rate: float
    interval: tuple[float, float] | None
    needed_points: int
    margin: float
    tail: Tail = field(repr=False)

    @classmethod
    def from_tail(cls, tail: Tail, budget: Budget, sensitivity: float = 1.0) -> Threshold:
        """The threshold at which ``budget`` × ``sensitivity`` alerts are expected to open.

        A budget that allows more openings than the tail's level has gets the level, and fewer.

        Args:
            tail: calibration of the model file.
            budget: alarms allowed.
            sensitivity: 0.1…10; 2 allows twice as many openings: a lower threshold. UNCALIBRATED,
                the margin is divided by it.

        Raises:
            ConfigError: ``sensitivity`` is out of bounds.
        """
        least, most = SENSITIVITY
        if not least <= sensitivity <= most:
            raise ConfigError(
                f"sensitivity: {sensitivity:g} is not in {least:g}…{most:g} "
                "(2 allows twice as many alarms)"
            )
        if not tail.fitted:
            margin = MARGIN if tail.cross_fitted else IN_SAMPLE_MARGIN
            return cls._fallback(tail, margin / sensitivity)
        rate = budget.rate * sensitivity
        value = float(np.median(tail.quantile(rate)))
        rates = tail.rates(value)
        low, high = (float(bound) for bound in np.quantile(rates, INTERVAL))
        calibrated = sum(peak >= value for peak in tail.peaks) >= ENOUGH_OPENINGS
        more = max(1, math.ceil(ENOUGH_OPENINGS / rate - tail.points))
        return cls(
            value=value,
            median=tail.median,
            state="CALIBRATED" if calibrated else "EXTRAPOLATED",
            rate=float(np.median(rates)),
            interval=(low, high),
            needed_points=0 if calibrated else more,
            margin=0.0,
            tail=tail,
        )

    def counts(self, points: float) -> tuple[int, int] | None:
        """The fewest and the most openings that ``points`` of fresh data have with 90 %.

        What calibration leaves open about the rate and the chance of counting are both in it: a
        rate of one a week still gives weeks with none and with three. None where nothing can be
        promised.
        """
        if self.interval is None:
            return None
        rates = self.tail.rates(self.value) if self.tail.fitted else np.array([self.rate])
        least, most = _poisson_quantiles(np.maximum(rates * points, 1e-12), INTERVAL)
        return (least, most) if self.tail.fitted else (0, most)

    @classmethod
    def _fallback(cls, tail: Tail, margin: float) -> Threshold:
        highest, spread = tail.highest, tail.highest - tail.median
        step = max(margin * spread, LEAST_MARGIN * abs(highest), 1e-6)
        # History for ENOUGH_PEAKS grows in proportion to what has been seen.
        seen = max(1.0, tail.independent)
        more = math.ceil(tail.points * max(ENOUGH_PEAKS / seen - 1, 0))
        if not (tail.cross_fitted or tail.shortfall):
            more = max(more, tail.points)
        most = NONE_SEEN / tail.points
        return cls(
            value=highest + step,
            median=tail.median,
            state="UNCALIBRATED",
            rate=most,
            interval=(0.0, most) if tail.cross_fitted else None,
            needed_points=max(more, tail.shortfall, 1),
            margin=step / spread if spread > 0 else 0.0,
            tail=tail,
        )

    def rarity(self, score: float) -> float:
        """Expected alert openings per point with a peak of ``score`` or more.

        Below the tail's level it is the rate at the level, the least it can be. UNCALIBRATED it is
        the most that calibration does not rule out: 3 openings in its points, or those seen.
        """
        tail = self.tail
        if self.state == "UNCALIBRATED":
            seen = sum(peak >= score for peak in tail.peaks)
            return max(NONE_SEEN, seen) / tail.points
        return float(np.median(tail.rates(max(score, tail.level))))


def _poisson_quantiles(means: npt.NDArray[np.float64], shares: tuple[float, ...]) -> list[int]:
    """Quantiles of a count whose distribution is the mean of those of ``means`` f64[n] > 0."""
    log_each, count, found = -means, 0, []
    below = float(np.exp(log_each).mean())
    for share in shares:
        while below < share:
            count += 1
            log_each = log_each + np.log(means / count)
            below += float(np.exp(log_each).mean())
        found.append(count)
    return found
