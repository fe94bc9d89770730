"""Series from CSV, NPZ and DataFrames: read strictly, refused in one sentence."""

from __future__ import annotations

import dataclasses
import itertools
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from edge_tsad.errors import DataError
from edge_tsad.runtime.resampler import Resampler
from edge_tsad.training.columns import (
    LABEL_NAMES,
    TIME_NAMES,
    check_one_label,
    labels_from,
    named,
    numbers_from,
    timeline,
    with_named_index,
)
from edge_tsad.training.timestamps import grid_step
from edge_tsad.types import Cells, Channel, FloatArray, IndexArray

__all__ = ["Segment", "Series", "from_frame", "load", "read_csv", "read_npz"]

Arrays = dict[str, npt.NDArray[Any]]


class Segment(NamedTuple):
    """A stretch without long gaps: ``values`` and ``observed`` f32[n, C].

    A missing value carries the last one, 0 before the first.
    """

    values: FloatArray
    observed: FloatArray

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Series:
    """Rows of measurements in the order of time.

    ``times_ns`` i64[n], strictly increasing; ``values`` f32[n, C] in engineering units, NaN where
    missing; ``labels`` u8[n], 1 where anomalous, or None. Without time stamps Δ is a nominal second
    and ``has_rate`` False. ``name`` is what messages call it.

    Raises:
        DataError: there is no row or channel, the lengths differ, times do not increase, a value
            is infinite, or a label is neither 0 nor 1.
    """

    times_ns: IndexArray
    values: FloatArray
    channels: tuple[Channel, ...]
    step_ns: int
    has_rate: bool = True
    labels: npt.NDArray[np.uint8] | None = None
    name: str = "series"

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or not self.values.size:
            raise DataError(f"{self.name}: is empty; give at least one row and one column")
        if self.values.shape != (len(self.times_ns), len(self.channels)):
            raise DataError(
                f"{self.name}: {self.values.shape[0]} rows of {self.values.shape[1]} values do not "
                f"fit {len(self.times_ns)} times and {len(self.channels)} channels"
            )
        if np.any(np.diff(self.times_ns) <= 0):
            raise DataError(
                f"{self.name}: time stamps do not increase; sort the rows and remove duplicates"
            )
        infinite = np.argwhere(np.isinf(self.values))
        if len(infinite):
            row, column = infinite[0]
            raise DataError(
                f"{self.name}: column {self.channels[column].name!r} is infinite in data row "
                f"{row + 1}; leave the field empty where nothing was measured"
            )
        if self.labels is not None and (
            len(self.labels) != len(self) or not np.isin(self.labels, (0, 1)).all()
        ):
            raise DataError(f"{self.name}: labels must be 0 or 1, one for each of {len(self)} rows")

    def __len__(self) -> int:
        return len(self.values)

    def part(self, begin: int, end: int) -> Series:
        """Rows ``begin``…``end`` − 1."""
        rows = slice(begin, end)
        return dataclasses.replace(
            self,
            times_ns=self.times_ns[rows],
            values=self.values[rows],
            labels=None if self.labels is None else self.labels[rows],
        )

    def without_anomalies(self) -> Series:
        """The same rows with the labelled ones missing, and no labels."""
        if self.labels is None:
            return self
        values = np.where(self.labels[:, None] == 1, np.float32(np.nan), self.values)
        return dataclasses.replace(self, values=values, labels=None)

    def cells(self) -> Cells:
        """On the grid, by the resampler that runs on the gateway."""
        resampler = Resampler(self.step_ns, self.channels)
        return Cells.join([resampler.extend(self.times_ns, self.values), resampler.finish()])

    def segments(self, longest_gap: int) -> list[Segment]:
        """Stretches between gaps of ``longest_gap`` or more cells, as a gateway sees them."""
        cells = self.cells()
        breaks = np.flatnonzero(np.diff(cells.index) > longest_gap) + 1
        bounds = [0, *breaks.tolist(), len(cells)]
        return [
            _dense(cells.index[a:b], cells.values[a:b], cells.observed[a:b])
            for a, b in itertools.pairwise(bounds)
            if b > a
        ]


def _dense(index: IndexArray, values: FloatArray, observed: FloatArray) -> Segment:
    positions = index - index[0]
    length, channels = int(positions[-1]) + 1, values.shape[1]
    known = np.zeros((length, channels), np.float32)
    known[positions] = observed
    spread = np.zeros((length, channels), np.float32)
    spread[positions] = values
    # The row of the newest measurement of each channel; 0 before the first one, whose value is 0.
    newest = np.maximum.accumulate(np.where(known > 0, np.arange(length)[:, None], 0), axis=0)
    return Segment(np.take_along_axis(spread * known, newest, axis=0), known)


def from_frame(
    frame: pd.DataFrame,
    *,
    time: str | None = None,
    columns: list[str] | None = None,
    label: str | None = None,
    step_ns: int | None = None,
    channels: tuple[Channel, ...] | None = None,
    name: str = "frame",
) -> Series:
    """A series from a DataFrame.

    Args:
        frame: one row a time.
        time: column of time stamps; default: a DatetimeIndex, else a column called time, timestamp
            or so. A column that only numbers the rows tells no rate.
        columns: columns that are channels; default: all others.
        label: column that is not 0 where anomalous; default: a column called label, anomaly or so.
        step_ns: Δ; default: the median distance of the time stamps.
        channels: units, aggregates and holds, in the order of the columns.
        name: what messages call it.

    Raises:
        DataError: as the class, and: a column is missing or holds something that is no number.
    """
    if not len(frame):
        raise DataError(f"{name}: has no rows; give at least one")
    time = time if time is not None else named(frame, TIME_NAMES, columns)
    label = label if label is not None else named(frame, LABEL_NAMES, columns)
    if columns is None:
        check_one_label(frame, label, name)
    special = {time, label} - {None}
    wanted = columns if columns is not None else [c for c in frame.columns if c not in special]
    for column in [*wanted, *special]:
        if column not in frame.columns:
            known = ", ".join(str(known) for known in frame.columns)
            raise DataError(f"{name}: has no column {column!r}; its columns are {known}")
    times, step, has_rate = timeline(frame, time, step_ns, name)
    numbers = [numbers_from(frame[column], name) for column in wanted]
    values = np.stack(numbers, axis=1) if numbers else np.empty((len(frame), 0), np.float32)
    labels = None if label is None else labels_from(frame[label], name)
    described = channels or tuple(Channel(str(column)) for column in wanted)
    return Series(times, values, described, step, has_rate, labels, name)


def read_csv(path: str | Path, *, separator: str = ",", **options: Any) -> Series:
    """A series from a CSV file; ``options`` are those of ``from_frame``.

    A first line that holds only numbers is data, and the columns are then called c0, c1, ….

    Raises:
        DataError: the file cannot be read as CSV, or as ``from_frame``.
    """
    path = Path(path)
    try:
        frame = pd.read_csv(path, sep=separator)
        if all(_is_number(str(column)) for column in frame.columns):
            frame = pd.read_csv(path, sep=separator, header=None)
            frame.columns = pd.Index([f"c{column}" for column in frame.columns])
        frame = with_named_index(frame)
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{path}: is empty; give a CSV file with a line of column names") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be read as CSV: {reason}") from error
    return from_frame(frame, **{"name": str(path), **options})


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_npz(path: str | Path, *, key: str | None = None, **options: Any) -> Series:
    """A series from an NPZ file.

    Its arrays are ``values`` [n] or [n, C] and, where there are, ``times_ns`` i64[n], ``labels``
    [n] and ``channels`` (their names) [C]. In a file of many series ``key`` is the name of the
    array to take. ``options`` are those of ``from_frame``.

    Raises:
        DataError: the file cannot be read, holds no such array or not its rows, or as
            ``from_frame``.
    """
    path = Path(path)
    names = [key] if key else ["values", "times_ns", "labels", "channels"]
    known, arrays = _arrays(path, names)
    values = arrays.get(key or "values")
    if values is None:
        shown = ", ".join(known[:8]) or "none"
        raise DataError(f"{path}: has no array {key or 'values'!r}; its arrays are {shown}")
    values = values[:, None] if values.ndim == 1 else values
    times, labels = arrays.get("times_ns"), arrays.get("labels")
    rows = {len(array) for array in (values, times, labels) if array is not None and array.ndim}
    if values.ndim != 2 or rows != {len(values)}:
        raise DataError(f"{path}: values, times_ns and labels must be [n] or [n, C] of one n")
    columns = [str(name) for name in arrays.get("channels", _default_names(values.shape[1]))]
    if len(columns) != values.shape[1]:
        raise DataError(f"{path}: {len(columns)} channel names for {values.shape[1]} columns")
    frame = pd.DataFrame(values, columns=pd.Index(columns))
    given: dict[str, Any] = {"name": str(path) if key is None else f"{path}:{key}"}
    if labels is not None:
        frame[_LABEL] = labels
        given["label"] = _LABEL
    series = from_frame(frame, **{**given, "columns": columns, **options})
    if times is None:
        return series
    if not np.issubdtype(times.dtype, np.integer):
        raise DataError(f"{path}: times_ns are {times.dtype}; give whole nanoseconds, i64")
    times = times.astype(np.int64)
    step = options.get("step_ns") or grid_step(times)
    return dataclasses.replace(series, times_ns=times, step_ns=step, has_rate=True)


_LABEL = "\0labels"
"""The column that labels become; no channel is called so."""


def _arrays(path: Path, names: list[str]) -> tuple[list[str], Arrays]:
    """The names of all arrays in the file, and those of ``names`` that it has."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            known = list(archive.files)
            return known, {name: archive[name] for name in names if name in known}
    except (OSError, ValueError, AttributeError, TypeError, EOFError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be read as NPZ: {reason}") from error


def _default_names(count: int) -> list[str]:
    return ["value"] if count == 1 else [f"c{number}" for number in range(count)]


def load(path: str | Path, **options: Any) -> Series:
    """``read_npz`` for a name that ends in .npz, a recording's folder, else ``read_csv``."""
    if Path(path).is_dir():
        from edge_tsad.training.recordings import read_folder  # noqa: PLC0415 - it needs Series

        return read_folder(Path(path), **options)
    reader = read_npz if Path(path).suffix.lower() == ".npz" else read_csv
    return reader(path, **options)
