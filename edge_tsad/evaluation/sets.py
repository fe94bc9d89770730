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

import collections
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_tsad.errors import DataError
from edge_tsad.evaluation.dividing import FIRST_SHARE, divided
from edge_tsad.evaluation.labelled import LabelledSeries, LabelledSet
from edge_tsad.training.series import Series, read_csv
from edge_tsad.training.timestamps import grid_step
from edge_tsad.types import FloatArray

__all__ = ["load_set"]


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
    arrays, left_out = _read_arrays(path)
    unlabelled = sorted(arrays.keys() - {entry["name"] for entry in entries})
    left_out |= dict.fromkeys(unlabelled, "has no entry in the JSON file")
    entries = [entry for entry in entries if entry["name"] not in left_out]
    whole = _Whole(arrays, entries)
    series = list(_usable(path.stem, whole, left_out))
    if not series and not left_out:
        raise DataError(f"{path}: holds no series")
    return LabelledSet(path.stem, tuple(series), left_out)


def _read_arrays(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """The arrays by name, and why each other one cannot be read."""
    arrays, left_out = {}, {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for name in archive.files:
                try:
                    arrays[name] = archive[name]
                except ValueError as error:
                    left_out[name] = str(error).splitlines()[0]
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as NPZ: {str(error).splitlines()[0]}") from error
    return arrays, left_out


def _read_entries(path: Path) -> list[dict[str, Any]]:
    try:
        entries = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the labels cannot be read: {error}") from error
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in entries
    ):
        raise DataError(f"{path}: is no list of objects with a name each")
    names = collections.Counter(entry["name"] for entry in entries)
    if twice := [name for name, count in names.items() if count > 1]:
        raise DataError(f"{path}: {twice[0]!r} is in it more than once; give each its own name")
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
        begin = found[0].get("train_end") or 0
        try:
            values = _columns(self.arrays[found[0]["name"]])
        except DataError:  # the series itself is left out, with this reason
            return None
        return (values, begin) if isinstance(begin, int) and begin >= 0 else None


def _usable(name: str, whole: _Whole, left_out: dict[str, str]) -> Iterator[LabelledSeries]:
    for entry in whole.entries:
        try:
            yield _series(entry, whole)
        except DataError as error:
            left_out[entry["name"]] = str(error)


def _columns(array: npt.NDArray[Any]) -> FloatArray:
    if array.ndim not in (1, 2) or array.dtype.kind not in "biuf" or not array.size:
        raise DataError("is not an array of numbers [n] or [n, C]")
    with np.errstate(over="ignore"):
        values = array.astype(np.float32).reshape(len(array), -1)
    if np.isinf(values).any():
        row = int(np.argmax(np.isinf(values).any(axis=1)))
        raise DataError(f"holds infinity, or more than 32-bit numbers hold, at point {row}")
    return values


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
    return divided(series, whole.normal())


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


def _load_folder(path: Path) -> LabelledSet:
    """Each CSV file of a folder is a series with a label column."""
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".csv")
    if not files:
        raise DataError(f"{path}: holds no CSV file; give a folder of labelled CSV files")
    series: list[LabelledSeries] = []
    left_out: dict[str, str] = {}
    for file in files:
        try:
            series.append(divided(_from_rows(file.stem, read_csv(file))))
        except DataError as error:
            left_out[file.stem] = str(error)
    return LabelledSet(path.resolve().name, tuple(series), left_out)


def _from_rows(name: str, rows: Series) -> LabelledSeries:
    """On the grid, as the gateway would see it; a cell is anomalous if one of its rows is.

    An anomalous row without a value is a cell too: what cannot be seen there is not found.
    """
    labels = rows.labels
    if labels is None:
        raise DataError("has no column of labels; call one 'label' with 0 and 1")
    if rows.has_rate:
        first = rows.times_ns[: len(rows.times_ns) // FIRST_SHARE]
        rows = replace(rows, step_ns=grid_step(first if len(first) > 1 else rows.times_ns))
    cells = rows.cells()
    anomalous = np.unique(rows.times_ns[labels > 0] // rows.step_ns)
    index = np.union1d(cells.index, anomalous)
    values = np.full((len(index), cells.values.shape[1]), np.nan, np.float32)
    values[np.searchsorted(index, cells.index)] = np.where(
        cells.observed > 0, cells.values, np.float32(np.nan)
    )
    return LabelledSeries(
        name=name,
        index=index,
        values=values,
        labels=np.isin(index, anomalous).astype(np.uint8),
        train_end=0,
        recording=name,
        step_ns=rows.step_ns,
        has_rate=rows.has_rate,
        units=tuple(channel.unit for channel in rows.channels),
    )
