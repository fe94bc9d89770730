"""What a person would call a class of behaviour: how it differs from the rest of the history."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_tsad.types import FloatArray

__all__ = ["behaviours"]

NOTABLE = 1.0
"""Standard deviations over all stretches from which a trait is worth a word."""

SLIGHT = 0.25
"""Likewise for the greatest trait of a class that has no notable one."""

MOST_CHANNELS = 3
TRAITS = (("low", "high"), ("falling", "rising"), ("calm", "lively"))
SPREAD_FLOOR = 0.05
"""Scaled: differences below this are none."""


def behaviours(
    shapes: FloatArray, labels: npt.NDArray[np.int64], names: Sequence[str]
) -> tuple[str, ...]:
    """One line for each class, such as ``12% of the history; flow high, rising; temp calm``.

    Args:
        shapes: f32[n, samples, C], scaled stretches of the history.
        labels: their classes i64[n], from 0 without gaps.
        names: of the C channels; of a single one the name is left out.
    """
    traits = _traits(shapes)
    apart = (traits - traits.mean(axis=0)) / np.maximum(traits.std(axis=0), SPREAD_FLOOR)
    lines = []
    for label in range(int(labels.max()) + 1):
        member = labels == label
        words = _words(apart[member].mean(axis=0), names if len(names) > 1 else ("",))
        lines.append(f"{member.mean():.0%} of the history; {words}")
    return tuple(lines)


def _traits(shapes: FloatArray) -> npt.NDArray[np.float64]:
    """Level, trend and swing f64[n, 3, C] of each stretch and channel."""
    quarter = shapes.shape[1] // 4
    level = shapes.mean(axis=1)
    trend = shapes[:, -quarter:].mean(axis=1) - shapes[:, :quarter].mean(axis=1)
    return np.stack([level, trend, shapes.std(axis=1)], axis=1).astype(np.float64)


def _words(apart: npt.NDArray[np.float64], names: Sequence[str]) -> str:
    """The notable traits f64[3, C] of the channels that differ most, or else the greatest one."""
    order = np.argsort(-np.abs(apart).max(axis=0), kind="stable")[:MOST_CHANNELS]
    told = [_told(names[channel], apart[:, channel], NOTABLE) for channel in order]
    if not any(told):
        least = np.abs(apart).max()
        mild = _told(names[order[0]], apart[:, order[0]], max(least, SLIGHT))
        return f"{mild}, slightly" if mild else "as usual"
    return "; ".join(words for words in told if words)


def _told(name: str, deviations: npt.NDArray[np.float64], least: float) -> str:
    """The traits f64[3] of a channel that deviate by ``least`` or more, after its name."""
    words = [
        pair[int(value > 0)]
        for pair, value in zip(TRAITS, deviations, strict=True)
        if abs(value) >= least
    ]
    return f"{name} {', '.join(words)}".strip() if words else ""
