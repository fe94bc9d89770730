"""Arrays of windows, and the distorted ones that files are verified and calibrated on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_tsad.training.distortion import KINDS, distort
from edge_tsad.types import FloatArray
from export.injection import strong_kinds

__all__ = ["Windows", "calibration_windows", "distorted"]

GAINS = (0.0, 3.0)
"""Swings of some of the distorted windows around their mean: a sensor that froze, one that ran
away."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows to run a detector on: ``window`` and ``observed``, both f32[n, T, C]."""

    window: FloatArray
    observed: FloatArray

    def __len__(self) -> int:
        return len(self.window)

    @classmethod
    def join(cls, parts: list[Windows]) -> Windows:
        """The windows of ``parts`` (at least one) in their order."""
        return cls(
            np.concatenate([part.window for part in parts]),
            np.concatenate([part.observed for part in parts]),
        )

    def first(self, count: int) -> Windows:
        """At most ``count`` of the windows, the first ones."""
        return Windows(self.window[:count], self.observed[:count])

    def take(self, count: int) -> Windows:
        """At most ``count`` of the windows, evenly spread."""
        chosen = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int))
        return Windows(self.window[chosen], self.observed[chosen])


def distorted(normal: Windows, period: int, seed: int) -> Windows:
    """As many windows, each with a simulated anomaly; some swing otherwise, some lost points.

    Args:
        normal: windows of the history.
        period: the dominant period in points, by which the anomalies are sized.
        seed: equal seeds give equal windows.
    """
    rng = np.random.default_rng(seed)
    values = distort(normal.window, period, rng).values
    observed = normal.observed.copy()
    points = values.shape[1]
    for row in range(len(values)):
        if row % 4 == 1:
            mean = values[row].mean(axis=0)
            values[row] = mean + GAINS[row // 4 % 2] * (values[row] - mean)
        elif row % 4 == 3:
            start = int(rng.integers(points // 2))
            lose(values[row], observed[row], slice(start, start + points // 8))
    return Windows(values, observed)


def calibration_windows(normal: Windows, period: int, seed: int) -> tuple[Windows, Windows]:
    """What ranges of activations may be taken from: ``normal`` and as many with an anomaly.

    The second windows are the first ones and as many with spikes and shifts as strong as those that
    alerts are compared on. Ranges that hold these as well are up to several times as wide: of one
    channel with little noise they cost more than they save, while on SKAB's eight channels a file
    without them alerted otherwise.
    """
    rng = np.random.default_rng(seed)
    usual, strong = (
        Windows(distort(normal.window, period, rng, kinds).values, normal.observed)
        for kinds in (KINDS, strong_kinds(1.0))
    )
    return Windows.join([normal, usual]), Windows.join([normal, usual, strong])


def lose(values: FloatArray, observed: FloatArray, gap: slice) -> None:
    """Make points of a window [T, C] missing, in place, as the runtime hands them over.

    A missing point carries the last value, or 0 before the first one.
    """
    observed[gap] = 0
    values[gap] = values[gap.start - 1] if gap.start else 0
