"""Which part of a labelled series is history and which is test, where the set does not say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge_tsad.errors import DataError
from edge_tsad.evaluation.labelled import LabelledSeries
from edge_tsad.types import FloatArray

__all__ = ["FIRST_SHARE", "divided"]

FIRST_SHARE = 5
"""Where no history is given, the first 1/5 of a series is its history, if no anomaly is in it."""

FAR = 1 << 40
"""Grid cells between two recordings that are scored one after the other: more than any window."""


def divided(series: LabelledSeries, normal: tuple[FloatArray, int] | None = None) -> LabelledSeries:
    """The series with a history and a test part."""
    if not np.isfinite(series.values).any():
        raise DataError("holds no value")
    if series.train_end == 0:
        if series.labels.all():
            series = _after_normal(series, normal[0] if normal else None)
        else:
            series = replace(series, train_end=len(series) // FIRST_SHARE, contiguous=True)
            if series.labels[: series.train_end].any():
                raise DataError(f"has no history: an anomaly lies in its first 1/{FIRST_SHARE}")
    elif normal is not None and not series.contiguous and series.labels.any():
        series = _beside_normal(series, *normal)
    if not np.isfinite(series.values[: series.train_end]).any():
        raise DataError("has no history: not one value comes before its test part")
    if series.train_end >= len(series):
        raise DataError("has no test part: all of it is history")
    if series.labels[series.train_end :].all():
        raise DataError("everything in its test part is anomalous")
    return series


def _after_normal(series: LabelledSeries, normal: FloatArray | None) -> LabelledSeries:
    """Half of the set's normal recording as history; its other half and the series as test."""
    if normal is None or normal.shape[1] != series.values.shape[1]:
        raise DataError("everything is anomalous, and the set has no normal recording as history")
    return replace(
        series,
        index=np.concatenate([np.arange(len(normal)), FAR + np.arange(len(series))]),
        values=np.concatenate([normal, series.values]),
        labels=np.concatenate([np.zeros(len(normal), np.uint8), series.labels]),
        train_end=len(normal) // 2,
        contiguous=True,
    )


def _beside_normal(series: LabelledSeries, normal: FloatArray, begin: int) -> LabelledSeries:
    """The test after that of the set's normal recording, ``normal`` from ``begin`` on.

    Recordings of plants begin where the fault does or soon after: all that follows the warm-up may
    be anomalous, and then nothing says what a normal point would have scored.
    """
    if begin >= len(normal) or normal.shape[1] != series.values.shape[1]:
        return series
    end, tested = series.train_end, normal[begin:]

    quiet = np.zeros(len(tested), np.uint8)
    index = [np.arange(end + len(tested)), FAR + np.arange(len(series) - end)]
    return replace(
        series,
        index=np.concatenate(index),
        values=np.concatenate([series.values[:end], tested, series.values[end:]]),
        labels=np.concatenate([series.labels[:end], quiet, series.labels[end:]]),
    )
