"""Histories that tests make: noisy sines with a known period."""

from __future__ import annotations

import numpy as np

from edge_tsad.training.series import Series
from edge_tsad.types import Channel, FloatArray, Timing

SECOND = 10**9


def sines(points: int, *, channels: int = 1, period: int = 16, seed: int = 0) -> FloatArray:
    """f32[points, channels]; channel c swings by c + 1 around 10 · (c + 1)."""
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * np.arange(points)[:, None] / period + np.arange(channels)
    swing = 1.0 + np.arange(channels)
    noise = rng.normal(0, 0.02, (points, channels))
    return ((np.sin(angle) + noise + 10) * swing).astype(np.float32)


def history(values: FloatArray, *, has_rate: bool = True) -> Series:
    """A series of one point a second."""
    times = np.arange(len(values), dtype=np.int64) * SECOND
    channels = tuple(Channel(f"c{number}") for number in range(values.shape[1]))
    return Series(times, values, channels, SECOND, has_rate, name="history")


def short_timing(window: int = 64, period: int = 16) -> Timing:
    """Windows short enough to be fitted to in a second."""
    return Timing(SECOND, window=window, hop=4, delay=16, smoothing=3, period=period)
