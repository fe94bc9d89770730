"""The dominant period of a series, from its autocorrelation, with an answer when there is none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_tsad.types import FloatArray

__all__ = ["Period", "dominant_period"]

SHORTEST = 4
"""Lags below this are the smoothness of neighbouring points, not a period."""

REPEATS = 3
"""A period must fit this often into the history to be told from a trend."""

LEAST_STRENGTH = 0.2
"""Least rise of the autocorrelation from the deepest valley before a peak to the peak."""

CLOSE_TO_BEST = 0.85
"""The first peak that reaches this share of the best one is taken: the best is often a multiple of
the period, where slow drift happens to add up."""

LONGEST_HISTORY = 1 << 18
"""Newest points that are looked at; more would cost time and tell no more."""


@dataclass(frozen=True, slots=True)
class Period:
    """``points`` in a period; ``strength`` in 0…1 or so; ``found`` is False for a stand-in."""

    points: int
    strength: float
    found: bool


def dominant_period(values: FloatArray) -> Period:
    """The dominant period of ``values`` f32[n, C] (NaN = missing; lines are drawn across it).

    The autocorrelations of the channels that vary are averaged. Of the local maxima between
    ``SHORTEST`` and n / ``REPEATS``, the first is taken whose rise from the valley before it is
    near the greatest. Without a peak ``found`` is False, ``points`` n / 16 within 16…128: a
    stretch long enough to hold a shape, short enough for several to be seen.
    """
    recent = np.asarray(values[-LONGEST_HISTORY:], np.float64)
    columns = [_complete(column) for column in recent.T]
    columns = [column for column in columns if np.ptp(column) > 0]
    longest = len(recent) // REPEATS
    stand_in = Period(int(np.clip(len(recent) // 16, 16, 128)), 0.0, False)
    if not columns or longest <= SHORTEST:
        return stand_in
    correlation = np.mean([_autocorrelation(column, longest + 2) for column in columns], axis=0)
    inner = correlation[1:-1]
    peaks = 1 + np.flatnonzero((inner > correlation[:-2]) & (inner >= correlation[2:]))
    peaks = peaks[peaks >= SHORTEST]
    rise = correlation[peaks] - np.minimum.accumulate(correlation)[peaks]
    rise = np.where(correlation[peaks] > 0, rise, 0.0)
    if not len(peaks) or rise.max() < LEAST_STRENGTH:
        return stand_in
    chosen = int(np.argmax(rise >= CLOSE_TO_BEST * rise.max()))
    return Period(int(peaks[chosen]), float(min(correlation[peaks[chosen]], 1.0)), True)


def _complete(column: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    known = np.isfinite(column)
    if known.all():
        return column
    if not known.any():
        return np.zeros_like(column)
    positions = np.arange(len(column))
    filled: npt.NDArray[np.float64] = np.interp(positions, positions[known], column[known])
    return filled


def _autocorrelation(column: npt.NDArray[np.float64], lags: int) -> npt.NDArray[np.float64]:
    """Correlation of the detrended column with itself at the lags 0…lags−1, by FFT."""
    positions = np.arange(len(column))
    centred = column - np.polyval(np.polyfit(positions, column, 1), positions)
    size = 1 << (2 * len(centred) - 1).bit_length()
    power = np.abs(np.fft.rfft(centred, size)) ** 2
    covariance = np.fft.irfft(power, size)[:lags]
    # Each lag has one product fewer than the one before.
    covariance /= len(centred) - np.arange(lags)
    return covariance / covariance[0] if covariance[0] > 0 else np.zeros(lags)
