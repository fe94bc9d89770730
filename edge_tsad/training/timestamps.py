"""Time stamps of files and frames as nanoseconds since the Unix epoch, and their grid step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from edge_tsad.errors import DataError
from edge_tsad.types import NANOSECONDS, IndexArray

__all__ = ["counts_rows", "grid_step", "times_from"]

_UNITS = ((1e17, 1), (1e14, 1_000), (1e11, 1_000_000))
"""Numbers from here on are ns, µs, ms since the epoch, smaller ones seconds."""

LATEST_NS = 2**62
"""Times from here on (the year 2116) are none that the gateway takes."""

SNAP = 0.01
"""A jittering step is taken for the round number that lies within this share of it."""


def counts_rows(column: pd.Series) -> bool:
    """Whether the column only numbers the rows (0, 1, 2, … or 1, 2, 3, …) and tells no time."""
    if not pd.api.types.is_integer_dtype(column) or not len(column) or column.isna().any():
        return False
    numbers = column.to_numpy()
    return numbers[0] in (0, 1) and bool(np.all(np.diff(numbers) == 1))


def times_from(column: pd.Series, source: str) -> IndexArray:
    """i64[n] of numbers (s, ms, µs or ns since the epoch, told by their size) or of dates.

    Dates without a zone are UTC.

    Raises:
        DataError: a time stamp is missing, cannot be read, or is not later than the one before.
    """
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        times = _from_numbers(column, source)
    else:
        times = _from_dates(column, source)
    late = np.flatnonzero(np.diff(times) <= 0)
    if len(late):
        row = int(late[0]) + 2
        raise DataError(
            f"{source}: the time stamp of data row {row} ({column.iloc[row - 1]}) is not later "
            "than the one before; sort the rows and remove duplicates"
        )
    return times


def _from_numbers(column: pd.Series, source: str) -> IndexArray:
    numbers: npt.NDArray[np.float64] = column.to_numpy(np.float64, na_value=np.nan)
    _refuse(~np.isfinite(numbers), column, source)
    largest = float(np.abs(numbers).max(initial=0.0))
    factor = next((factor for least, factor in _UNITS if largest >= least), NANOSECONDS)
    _refuse(np.abs(numbers) * factor >= LATEST_NS, column, source)
    if pd.api.types.is_integer_dtype(column):
        return np.asarray(column.to_numpy(np.int64) * factor)
    return np.rint(numbers * factor).astype(np.int64)


def _from_dates(column: pd.Series, source: str) -> IndexArray:
    dates = pd.to_datetime(column, utc=True, errors="coerce", format="ISO8601")
    if dates.isna().all():
        dates = pd.to_datetime(column, utc=True, errors="coerce", format="mixed")
    _refuse(dates.isna().to_numpy(), column, source)
    naive: npt.NDArray[np.datetime64] = dates.dt.tz_localize(None).to_numpy("datetime64[ns]")
    return naive.astype("datetime64[ns]").astype(np.int64)


def _refuse(bad: npt.NDArray[np.bool_], column: pd.Series, source: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{source}: the time stamp of data row {row + 1} ({column.iloc[row]}) cannot be read; "
            "use ISO 8601 or seconds since 1970"
        )


def grid_step(times_ns: IndexArray) -> int:
    """Δ in ns: the median distance of the time stamps, rounded to two digits where they jitter."""
    if len(times_ns) < 2:
        return NANOSECONDS
    distances = np.diff(times_ns)
    step = int(np.median(distances))
    if np.all(distances % step == 0):
        return step
    digits = 1 - int(np.floor(np.log10(step)))
    rounded = max(1, round(step, digits))
    return rounded if abs(rounded - step) <= SNAP * step else step
