"""Columns of a table as numbers, labels and times, refused with the row that does not fit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from edge_tsad.errors import DataError
from edge_tsad.training.timestamps import counts_rows, grid_step, times_from
from edge_tsad.types import NANOSECONDS, FloatArray, IndexArray

__all__ = [
    "LABEL_NAMES",
    "TIME_NAMES",
    "check_one_label",
    "labels_from",
    "named",
    "numbers_from",
    "timeline",
    "with_named_index",
]

TIME_NAMES = ("time", "timestamp", "datetime", "date", "ts", "t")
"""A column of one of these names (in any case) holds the time stamps, unless told otherwise."""

LABEL_NAMES = ("label", "labels", "is_anomaly", "anomaly")
"""A column of one of these names (in any case) marks anomalies, unless it is asked for as data."""

_NAMELESS = "Unnamed: 0"
"""What pandas calls a first column without a name."""

SHOWN = 40
"""Characters of a faulty field that a message repeats."""


def named(frame: pd.DataFrame, names: tuple[str, ...], taken: list[str] | None) -> str | None:
    """The first column with one of ``names`` in any case that is not ``taken``, or None."""
    for column in frame.columns:
        if str(column).lower() in names and column not in (taken or ()):
            return str(column)
    return None


def check_one_label(frame: pd.DataFrame, label: str | None, source: str) -> None:
    """That no other column than ``label`` is called like labels.

    Raises:
        DataError: one is, and would be learned from as if a sensor had measured it.
    """
    other = [str(c) for c in frame.columns if str(c).lower() in LABEL_NAMES and c != label]
    if other:
        raise DataError(
            f"{source}: {other[0]!r} is called like labels, as {label!r} is; name the columns that "
            "are channels, or remove it"
        )


def with_named_index(frame: pd.DataFrame) -> pd.DataFrame:
    """A nameless first column is an index, as pandas and spreadsheets write one: no channel.

    Row numbers go: as a channel they would tell how far the recording has come, which no sensor
    does. Dates are the time, where no other column is called so.
    """
    first = frame.columns[0]
    if str(first) != _NAMELESS or len(frame.columns) == 1:
        return frame
    if counts_rows(frame[first]):
        return frame.drop(columns=first)
    if pd.api.types.is_numeric_dtype(frame[first]) or named(frame, TIME_NAMES, None):
        return frame
    return frame.rename(columns={first: TIME_NAMES[0]})


def timeline(
    frame: pd.DataFrame, time: str | None, step_ns: int | None, source: str
) -> tuple[IndexArray, int, bool]:
    """Times i64[n], Δ in ns, and whether they tell a rate (row numbers do not).

    Raises:
        DataError: see ``times_from``; or Δ is less than 1.
    """
    if step_ns is not None and step_ns < 1:
        raise DataError(f"{source}: a step of {step_ns} ns is less than 1; give a longer one")
    if time is not None and not counts_rows(frame[time]):
        times = times_from(frame[time], source)
    elif time is None and isinstance(frame.index, pd.DatetimeIndex):
        times = times_from(frame.index.to_series(), source)
    else:
        step = step_ns or NANOSECONDS
        return np.arange(len(frame), dtype=np.int64) * step, step, step_ns is not None
    return times, step_ns or grid_step(times), True


def numbers_from(column: pd.Series, source: str) -> FloatArray:
    """f32[n], NaN where a field is empty.

    Raises:
        DataError: a field is no number, or exceeds 32-bit numbers.
    """
    numbers = pd.to_numeric(column, errors="coerce")
    bad = (numbers.isna() & column.notna()).to_numpy()
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{source}: column {str(column.name)!r} holds {str(column.iloc[row])[:SHOWN]!r} in "
            f"data row {row + 1}, which is no number; choose other columns or correct it"
        )
    values = numbers.to_numpy(np.float64, na_value=np.nan)
    huge = np.isfinite(values) & (np.abs(values) > np.finfo(np.float32).max)
    if huge.any():
        raise DataError(
            f"{source}: column {str(column.name)!r} holds {values[huge][0]:g} in data row "
            f"{int(np.argmax(huge)) + 1}, more than 32-bit numbers hold; scale it down"
        )
    return values.astype(np.float32)


def labels_from(column: pd.Series, source: str) -> npt.NDArray[np.uint8]:
    """u8[n], 1 where the column holds any other number than 0.

    Raises:
        DataError: a field is empty or no number.
    """
    values = numbers_from(column, source)
    if np.isnan(values).any():
        row = int(np.argmax(np.isnan(values))) + 1
        raise DataError(
            f"{source}: label column {str(column.name)!r} is empty in data row {row}; write 0 "
            "where nothing was anomalous, or name another column"
        )
    return np.asarray(values != 0, np.uint8)
