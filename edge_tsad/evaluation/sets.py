"""Labelled series: a data set in one NPZ and one JSON file, or a folder of labelled CSV files.

A data set is ``<set>.npz``, one float array [n] or [n, C] per series keyed by its name, and
``<set>.json`` beside it, a list of objects with

==============  ==================================================================================
``name``        key of the array
``train_end``   so many points come first as history; 0 = see ``FIRST_SHARE``
``regions``     anomalies as half-open ``[begin, end)`` in indices of the whole series
``contiguous``  optional: false where history and test are separate recordings (default true)
``recording``   optional: what the series was cut from; intervals are bootstrapped over these
``half``        optional: ``tune`` or ``report``
``length``      optional: checked against the array
==============  ==================================================================================
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_tsad.errors import ConfigError, DataError
from edge_tsad.training.series import Series, read_csv
from edge_tsad.types import NANOSECONDS, FloatArray, IndexArray

__all__ = ["FIRST_SHARE", "LabelledSeries", "LabelledSet", "load_set"]

FIRST_SHARE = 5
"""Where no history is given, the first 1/5 of a series is its history, if no anomaly is in it."""

_FAR = 1 << 40
"""Grid cells between two recordings that are scored one after the other: more than any window."""


@dataclass(frozen=True, slots=True)
class LabelledSeries:
    """One series and what is known of it; only ``values``, grid and units ever reach a detector.

    ``index`` i64[n] are grid cells, ``values`` f32[n, C] with NaN where missing, ``labels`` u8[n].
    Rows before ``train_end`` are history.
    """

    name: str
    index: IndexArray
    values: FloatArray
    labels: npt.NDArray[np.uint8]
    train_end: int
    contiguous: bool = True
    recording: str = ""
    half: str = ""
    step_ns: int = NANOSECONDS
    has_rate: bool = False
    units: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """A set's usable series in their order, and why each other one is left out."""

    name: str
    series: tuple[LabelledSeries, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def choose(self, names: Collection[str] = (), half: str | None = None) -> LabelledSet:
        """The named series (all, where none is named) of one half.

        A set with halves never shows its ``report`` half unasked: without ``half`` it is ``tune``.

        Raises:
            ConfigError: ``half`` is asked of a set that has none, or nothing is left.
        """
        halves = {series.half for series in self.series} - {""}
        if half is not None and half not in halves:
            known = ", ".join(sorted(halves)) or "none"
            raise ConfigError(f"half: {half!r} is no half of {self.name}; its halves are {known}")
        wanted = half or ("tune" if halves else None)
        left_out = {k: why for k, why in self.left_out.items() if not names or k in names}
        known_names = {series.name for series in self.series} | set(self.left_out)
        left_out |= dict.fromkeys(
            sorted(set(names) - known_names), f"{self.name} has no such series"
        )
        chosen = [series for series in self.series if not names or series.name in names]
        kept = [series for series in chosen if wanted is None or series.half == wanted]
        if names:
            other = {series.name: series.half for series in chosen if series not in kept}
            left_out |= {
                name: f"belongs to the half {where!r}; ask for it by --half {where}"
                for name, where in other.items()
            }
        if not kept:
            why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
            raise ConfigError(f"series: nothing of {self.name} is left to run ({why or 'empty'})")
        return replace(self, series=tuple(kept), left_out=left_out)


def load_set(place: str | Path, data: str | Path = ".") -> LabelledSet:
    """A data set by the path of its NPZ, by its name within ``data``, or a folder of CSV files.

    Raises:
        DataError: nothing is there, or it cannot be read as a whole. A single series that cannot be
            used is left out instead, with the reason.
    """
    path = Path(place)
    if path.is_dir():
        return _load_folder(path)
    tried = [path, Path(data) / f"{place}.npz"]
    found = next((candidate for candidate in tried if candidate.is_file()), None)
    if found is None:
        raise DataError(
            f"{place}: is no NPZ file, no folder and no set in {data}; give a path, or the folder "
            "of the sets by --data"
        )
    return _load_npz(found)


def _load_npz(path: Path) -> LabelledSet:
    entries = _read_entries(path.with_suffix(".json"))
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as NPZ: {str(error).splitlines()[0]}") from error
    unlabelled = sorted(arrays.keys() - {entry["name"] for entry in entries})
    left_out = dict.fromkeys(unlabelled, "has no entry in the JSON file")
    whole = _Whole(arrays, entries)
    series = list(_usable(path.stem, whole, left_out))
    if not series and not left_out:
        raise DataError(f"{path}: holds no series")
    return LabelledSet(path.stem, tuple(series), left_out)


def _read_entries(path: Path) -> list[dict[str, Any]]:
    try:
        entries = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the labels cannot be read: {error}") from error
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in entries
    ):
        raise DataError(f"{path}: is no list of objects with a name each")
    return entries


class _Whole:
    """A set before it is divided; finds the normal recording that others may need as history."""

    def __init__(self, arrays: dict[str, npt.NDArray[Any]], entries: list[dict[str, Any]]) -> None:
        self.arrays, self.entries = arrays, entries

    def normal(self) -> tuple[FloatArray, int] | None:
        """The only series without anomalies, if there is exactly one, as f32[n, C].

        With it, how many of its first points are history.
        """
        found = [entry for entry in self.entries if entry.get("regions") == []]
        if len(found) != 1 or found[0]["name"] not in self.arrays:
            return None
        return _columns(self.arrays[found[0]["name"]]), int(found[0].get("train_end") or 0)


def _usable(name: str, whole: _Whole, left_out: dict[str, str]) -> Iterator[LabelledSeries]:
    for entry in whole.entries:
        try:
            yield _series(entry, whole)
        except DataError as error:
            left_out[entry["name"]] = str(error)


def _columns(array: npt.NDArray[Any]) -> FloatArray:
    if array.ndim not in (1, 2) or not np.issubdtype(array.dtype, np.number) or not array.size:
        raise DataError("is not an array of numbers [n] or [n, C]")
    return array.astype(np.float32).reshape(len(array), -1)


def _series(entry: dict[str, Any], whole: _Whole) -> LabelledSeries:
    name = entry["name"]
    if name not in whole.arrays:
        raise DataError("has labels but no array in the NPZ file")
    values = _columns(whole.arrays[name])
    labels = _labels(entry, len(values))
    train_end = entry.get("train_end")
    if not isinstance(train_end, int) or not 0 <= train_end <= len(values):
        raise DataError(f"train_end {train_end!r} does not lie within its {len(values)} points")
    series = LabelledSeries(
        name=name,
        index=np.arange(len(values)),
        values=values,
        labels=labels,
        train_end=train_end,
        contiguous=entry.get("contiguous") is not False,
        recording=str(entry.get("recording") or name),
        half=str(entry.get("half") or ""),
        units=("",) * values.shape[1],
    )
    return _divided(series, whole.normal())


def _labels(entry: dict[str, Any], length: int) -> npt.NDArray[np.uint8]:
    stated = entry.get("length", length)
    if stated != length:
        raise DataError(f"its labels are for {stated} points, but it has {length}")
    regions = entry.get("regions")
    if not isinstance(regions, list):
        raise DataError("has no regions; give an empty list where nothing is anomalous")
    labels = np.zeros(length, np.uint8)
    for region in regions:
        match region:
            case [int(begin), int(end)] if 0 <= begin < end <= length:
                labels[begin:end] = 1
            case _:
                raise DataError(f"region {region} does not lie within its {length} points")
    return labels


def _divided(
    series: LabelledSeries, normal: tuple[FloatArray, int] | None = None
) -> LabelledSeries:
    """The series with a history and a test part."""
    if series.train_end == 0:
        if series.labels.all():
            series = _after_normal(series, normal[0] if normal else None)
        else:
            series = replace(series, train_end=len(series) // FIRST_SHARE, contiguous=True)
            if series.labels[: series.train_end].any():
                raise DataError(f"has no history: an anomaly lies in its first 1/{FIRST_SHARE}")
    elif normal is not None and not series.contiguous and series.labels.any():
        series = _beside_normal(series, *normal)
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
        index=np.concatenate([np.arange(len(normal)), _FAR + np.arange(len(series))]),
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
    index = [np.arange(end + len(tested)), _FAR + np.arange(len(series) - end)]
    return replace(
        series,
        index=np.concatenate(index),
        values=np.concatenate([series.values[:end], tested, series.values[end:]]),
        labels=np.concatenate([series.labels[:end], quiet, series.labels[end:]]),
    )


def _load_folder(path: Path) -> LabelledSet:
    """Each CSV file of a folder is a series with a label column."""
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".csv")
    if not files:
        raise DataError(f"{path}: holds no CSV file; give a folder of labelled CSV files")
    series: list[LabelledSeries] = []
    left_out: dict[str, str] = {}
    for file in files:
        try:
            series.append(_divided(_from_rows(file.stem, read_csv(file))))
        except DataError as error:
            left_out[file.stem] = str(error)
    return LabelledSet(path.resolve().name, tuple(series), left_out)


def _from_rows(name: str, rows: Series) -> LabelledSeries:
    """On the grid, as the gateway would see it; a cell is anomalous if one of its rows is."""
    if rows.labels is None:
        raise DataError("has no column of labels; call one 'label' with 0 and 1")
    cells = rows.cells()
    labels = np.zeros(len(cells), np.uint8)
    where = np.searchsorted(cells.index, rows.times_ns // rows.step_ns)
    inside = where < len(cells)
    np.maximum.at(labels, where[inside], rows.labels[inside])
    return LabelledSeries(
        name=name,
        index=cells.index,
        values=np.where(cells.observed > 0, cells.values, np.float32(np.nan)),
        labels=labels,
        train_end=0,
        recording=name,
        step_ns=rows.step_ns,
        has_rate=rows.has_rate,
        units=tuple(channel.unit for channel in rows.channels),
    )
