"""Results on disk, one JSON line per series, candidate and seed, so that a run can be stopped.

Each line carries the digest of everything that its figures depend on: the data, the candidate and
its settings, the seed, and the code that measures. A line is used again only for the same digest.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_tsad.errors import DataError
from edge_tsad.evaluation.labelled import LabelledSeries

__all__ = ["Record", "Store", "code_digest", "digest_of", "series_digest"]

Record = dict[str, Any]

_PACKAGE = Path(__file__).resolve().parents[1]
_DIGITS = 16


def digest_of(settings: Mapping[str, object]) -> str:
    """SHA-256 of JSON values, first 16 digits."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


@functools.cache
def code_digest(*parts: str) -> str:
    """Of the source of modules and folders, named relative to the package (``training``, …)."""
    digest = hashlib.sha256()
    for part in parts:
        place = _PACKAGE / part
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:_DIGITS]


def series_digest(series: LabelledSeries) -> str:
    """Of everything that a series' figures depend on; its name is no part of it."""
    digest = hashlib.sha256()
    for array in (series.index, series.values, series.labels):
        digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
    facts = (series.train_end, series.contiguous, series.step_ns, series.has_rate, series.units)
    digest.update(repr(facts).encode())
    return digest.hexdigest()[:_DIGITS]


class Store:
    """The lines of one file; ``add`` is on disk when it returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, Record] = {}
        if path.exists():
            self._read()

    def _read(self) -> None:
        try:
            lines = self.path.read_bytes().splitlines(keepends=True)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror}") from error
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                key = record["key"]
            except (ValueError, KeyError, TypeError) as error:
                if number < len(lines):
                    raise DataError(f"{self.path}: line {number} is no result") from error
                key = None
            if key is None or not line.endswith(b"\n"):
                # The last line, which a kill cut short: it is computed and written again.
                os.truncate(self.path, sum(map(len, lines[:-1])))
            else:
                self.records[key] = record

    def add(self, record: Record) -> None:
        """Append one result with its ``key``."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, sort_keys=True, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.records[record["key"]] = record
