"""Data of normal operation that a user hands over to calibrate files on and to try them with."""

from __future__ import annotations

import dataclasses

import numpy as np

from edge_tsad.errors import DataError
from edge_tsad.training.series import Segment, Series
from edge_tsad.training.windows import WindowSampler
from edge_tsad.types import Channel, FloatArray, Timing
from export.windows import Windows

__all__ = ["Calibration", "calibration_of"]

LEAST_WINDOWS = 2
"""Windows' worth of points in one piece: half of it sets ranges, the other half is held out."""

SPREAD, EXTREMES = 64, 32
"""Windows for ranges: evenly spread ones, and at most so many with the extremes of channels."""

Calibration = tuple[Windows, Segment]
"""Windows that set ranges, and the stretch after them that files are tried on."""


def calibration_of(data: Series, channels: tuple[Channel, ...], timing: Timing) -> Calibration:
    """What a model with these channels and this timing can take from ``data``.

    Labelled anomalies are left out; columns may come in any order.

    Raises:
        DataError: a channel is missing, nothing varies, or no stretch is long enough.
    """
    normal = _arranged(data, channels, timing).without_anomalies()
    if np.isnan(normal.values).all():
        raise DataError(
            f"{data.name}: holds no value of normal operation: all are missing or labelled as"
            " anomalous; give other data"
        )
    if not np.any(np.nan_to_num(np.ptp(_known(normal.values), axis=0)) > 0):
        raise DataError(
            f"{data.name}: is constant, so it says nothing about normal operation; give data in"
            " which something happens"
        )
    stretch = max(normal.segments(timing.window), key=len)
    least = LEAST_WINDOWS * timing.window
    if len(stretch) < least:
        raise DataError(
            f"{data.name}: {len(stretch)} points without a long gap are too few to calibrate on;"
            f" at least {least} are needed (two windows of {timing.window}), and some thousands are"
            " better"
        )
    half = len(stretch) // 2
    first, second = (
        Segment(stretch.values[part], stretch.observed[part])
        for part in (slice(0, half), slice(half, None))
    )
    sampler = WindowSampler([first], timing.window)
    parts = [Windows(*sampler.spread(SPREAD)), Windows(*sampler.extremes(EXTREMES))]
    return Windows.join(parts), second


def _known(values: FloatArray) -> FloatArray:
    """Values with each missing one replaced by its channel's mean, 0 where there is none."""
    count = np.maximum((~np.isnan(values)).sum(axis=0), 1)
    mean = np.nan_to_num(values).sum(axis=0) / count
    known: FloatArray = np.where(np.isnan(values), mean, values).astype(np.float32)
    return known


def _arranged(data: Series, channels: tuple[Channel, ...], timing: Timing) -> Series:
    """``data`` with the columns and the grid of the model."""
    names = [channel.name for channel in data.channels]
    wanted = [channel.name for channel in channels]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(
            f"{data.name}: has no channel {missing[0]!r}; the model's channels are"
            f" {', '.join(wanted)}, and there are {', '.join(names)}"
        )
    if data.has_rate != timing.has_rate:
        has, needs = ("time stamps", "none") if data.has_rate else ("no time stamps", "some")
        raise DataError(f"{data.name}: has {has}, and the model's history had {needs}")
    return dataclasses.replace(
        data,
        values=np.ascontiguousarray(data.values[:, [names.index(name) for name in wanted]]),
        channels=channels,
        step_ns=timing.step_ns,
    )
