"""A CSV file replayed at its own pace, faster, or as fast as it can be scored."""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, TextIO

from edge_tsad.errors import ConfigError, DataError
from edge_tsad.runtime.gathering import pace_s
from edge_tsad.runtime.sources.base import Batch, Complaints, batch_of
from edge_tsad.runtime.sources.columns import Columns, looks_like_header
from edge_tsad.types import NANOSECONDS, Channel, Timing

__all__ = ["CsvSource"]

ROWS = 512


@dataclass(frozen=True, slots=True)
class CsvOptions:
    """``path``; ``speed`` × real time or ``"max"``; ``time``: the column with the time stamps.

    Without ``time`` a column with a usual name (time, timestamp, date, …) is taken, if there is
    one. ``delimiter`` is found by itself when empty.
    """

    path: str
    speed: Literal["max"] | float = 1.0
    time: str = ""
    delimiter: Literal["", ",", ";", "\t"] = ""

    def __post_init__(self) -> None:
        if self.speed != "max" and self.speed <= 0:
            raise ConfigError(
                f'source.speed: {self.speed} is not positive; "max" is as fast as it can be scored'
            )

    def at(self, folder: Path) -> CsvOptions:
        """The same with a relative ``path`` taken from ``folder``."""
        return replace(self, path=str(folder / self.path))


class CsvSource:
    """Rows of a file with a header that names the channels, or with exactly their columns.

    Rows without time stamps, and all rows of a bundle that was trained without a rate, are one grid
    step Δ apart: from index 0 without a rate, else from the wall clock's time at the start. A row
    that cannot be read keeps its place in that count and is otherwise left out.
    """

    Options: ClassVar[type[CsvOptions]] = CsvOptions
    live = False

    def __init__(self, options: CsvOptions, channels: tuple[Channel, ...], timing: Timing) -> None:
        self.options = options
        self.timing = timing
        self.complaints = Complaints(options.path)
        cells, self.delimiter = first_row(options)
        self.has_header = looks_like_header(cells)
        if self.has_header:
            self.columns = Columns.named(cells, channels, options.time, options.path)
        else:
            self.columns = Columns.counted(len(cells), channels, options.path)

    @classmethod
    def known_channels(cls, options: CsvOptions) -> tuple[Channel, ...]:
        """The columns that its first line names, but for the time.

        Raises:
            DataError: the file cannot be read.
        """
        cells, _ = first_row(options)
        if not looks_like_header(cells):
            return ()
        time_column = Columns.named(cells, (), options.time, options.path).time
        return tuple(Channel(name.strip()) for i, name in enumerate(cells) if i != time_column)

    def batches(self, stop: threading.Event) -> Iterator[Batch]:
        """Batches of at most 512 rows and, when paced, of as much time as is scored at once."""
        begun_s = time.monotonic()
        origin_ns: int | None = None
        times: list[int] = []
        rows: list[list[float]] = []
        span_ns = self._real_to_data_ns(pace_s(self.timing))
        for time_ns, row in self._rows():
            origin_ns = time_ns if origin_ns is None else origin_ns
            if times and (len(times) == ROWS or not 0 <= time_ns - times[0] <= span_ns):
                self._wait(stop, begun_s, max(times) - origin_ns)
                if stop.is_set():
                    return
                yield batch_of(times, rows)
                times, rows = [], []
            times.append(time_ns)
            rows.append(row)
        if times and origin_ns is not None:
            self._wait(stop, begun_s, max(times) - origin_ns)
            if not stop.is_set():
                yield batch_of(times, rows)

    def _rows(self) -> Iterator[tuple[int, list[float]]]:
        counted = self.columns.time is None or not self.timing.has_rate
        step_ns = self.timing.step_ns
        first_ns = time.time_ns() // step_ns * step_ns if self.timing.has_rate else 0
        with opened(self.options.path) as file:
            reader = csv.reader(file, delimiter=self.delimiter)
            if self.has_header:
                next(reader)
            for position, cells in enumerate(lines_of(reader)):
                try:
                    time_ns, values = self.columns.read(cells)
                except (ValueError, OverflowError) as e:
                    self.complaints.note("MALFORMED", f"line {reader.line_num} left out: {e}")
                    continue
                if counted or time_ns is None:
                    time_ns = first_ns + position * step_ns
                yield time_ns, values

    def _real_to_data_ns(self, real_s: float) -> float:
        speed = self.options.speed
        return float("inf") if speed == "max" else real_s * speed * NANOSECONDS

    def _wait(self, stop: threading.Event, begun_s: float, data_ns: int) -> None:
        """Until ``data_ns`` of the file's time have passed at the chosen speed."""
        if self.options.speed != "max":
            due_s = begun_s + data_ns / NANOSECONDS / self.options.speed
            stop.wait(max(0.0, due_s - time.monotonic()))


def opened(path: str) -> TextIO:
    return Path(path).open(encoding="utf-8-sig", errors="replace", newline="")


def first_row(options: CsvOptions) -> tuple[list[str], str]:
    """The cells of the first line, and what separates them.

    Raises:
        DataError: the file cannot be read, or its first line is empty.
    """
    try:
        with opened(options.path) as file:
            first = file.readline(1 << 20)
    except OSError as e:
        raise DataError(f"{options.path}: cannot be read: {e.strerror or e}") from e
    delimiter = options.delimiter or find_delimiter(first)
    cells = next(csv.reader([first], delimiter=delimiter), [])
    if not cells:
        raise DataError(f"{options.path}: is empty or begins with an empty line")
    return cells, delimiter


def find_delimiter(line: str) -> str:
    """The candidate that occurs most often in the first line; a comma where none does."""
    return max((",", ";", "\t"), key=line.count)


def lines_of(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    """The reader's rows; what ``csv`` cannot split comes as no cells, empty lines not at all."""
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield []
            continue
        if cells:
            yield cells
