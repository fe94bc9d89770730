"""Simulated anomalies: the four kinds that CoAD's classifier learns from.

Tang et al., arXiv 2605.26193 ("CoAD"): a random segment of a normal window is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_tsad.types import FloatArray

__all__ = ["KINDS", "Distorted", "distort"]

SEGMENT_PERIODS = (0.1, 1.0)
"""Length of a segment, in dominant periods."""

STRETCH = (2.0, 4.0)
JITTER = 0.05
"""Standard deviation of the added noise, as a share of the window's range."""

LEAST_CHANGE = 1e-3
"""A segment that changed by less than this share of the window's range is left unlabelled: a flat
stretch is its own mirror image, and calling it anomalous would only teach noise."""

Kind = Callable[[FloatArray, int, int, np.random.Generator], FloatArray]


class Distorted(NamedTuple):
    """``values`` f32[B, T, C] and where they are distorted, ``changed`` bool[B, T, C]."""

    values: FloatArray
    changed: npt.NDArray[np.bool_]


def distort(
    windows: FloatArray,
    period: int,
    rng: np.random.Generator,
    kinds: Mapping[str, Kind] | None = None,
) -> Distorted:
    """Copies of ``windows`` f32[B, T, C], each with one simulated anomaly.

    In each window a segment of ``SEGMENT_PERIODS`` of ``period`` points is replaced by one of
    ``kinds`` (default: all of ``KINDS``), in a random non-empty subset of the channels.
    """
    makers = tuple((KINDS if kinds is None else kinds).values())
    values = np.array(windows, np.float32)
    changed = np.zeros(values.shape, np.bool_)
    length, channels = values.shape[1:]
    for window, mark in zip(values, changed, strict=True):
        span = int(np.clip(round(rng.uniform(*SEGMENT_PERIODS) * period), 1, length))
        start = int(rng.integers(length - span + 1))
        make = makers[rng.integers(len(makers))]
        for channel in _some(channels, rng):
            series = window[:, channel]
            replaced = make(series, start, span, rng)
            change = np.abs(replaced - series[start : start + span]).max()
            mark[start : start + span, channel] = change > LEAST_CHANGE * np.ptp(series)
            series[start : start + span] = replaced
    return Distorted(values, changed)


def _some(channels: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """A random non-empty subset of the channels; every size is as likely as any other."""
    return rng.permutation(channels)[: rng.integers(1, channels + 1)]


def _replace(series: FloatArray, start: int, span: int, rng: np.random.Generator) -> FloatArray:
    value = rng.uniform(series.min(), series.max())
    return np.full(span, value, np.float32)


def _flip(series: FloatArray, start: int, span: int, rng: np.random.Generator) -> FloatArray:
    return series[start : start + span][::-1].copy()


def _stretch(series: FloatArray, start: int, span: int, rng: np.random.Generator) -> FloatArray:
    source = np.arange(span) / rng.uniform(*STRETCH)
    segment = series[start : start + span]
    return np.interp(source, np.arange(span), segment).astype(np.float32)


def _jitter(series: FloatArray, start: int, span: int, rng: np.random.Generator) -> FloatArray:
    noise = rng.standard_normal(span) * (JITTER * np.ptp(series))
    return (series[start : start + span] + noise).astype(np.float32)


KINDS: Mapping[str, Kind] = {
    "replace": _replace,
    "flip": _flip,
    "stretch": _stretch,
    "jitter": _jitter,
}
