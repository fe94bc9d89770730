"""Lines of text as samples: numbers, CSV or JSON, as sensors and scripts write them."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping

from edge_tsad.errors import DataError
from edge_tsad.runtime.sources.base import Complaints
from edge_tsad.runtime.sources.columns import TIME_NAMES, Columns, looks_like_header, parse_time_ns
from edge_tsad.types import Channel, Timing

__all__ = ["LineParser", "number"]

LONGEST_LINE = 1 << 16
SEPARATOR = re.compile(r"\s*[,;\t]\s*|\s+")

Sample = tuple[int, list[float]]


class LineParser:
    """Bytes in the pieces in which they arrive become samples (time in ns, a value per channel).

    A line may be the channels' numbers in their order, with or without a time before them,
    separated by commas or blanks; a JSON array of the same; or a JSON object ``{"time": …,
    "<channel>": …}`` in which absent channels are missing. A first line of words names columns. A
    line without a time is stamped on arrival, or, when ``spaced`` or without a rate, a step after
    the one before. What cannot be read is counted in ``complaints`` and left out.

    ``live`` tells whether lines are stamped: those with times of their own may be a recording. The
    first line decides before any cell can close.
    """

    def __init__(
        self,
        channels: tuple[Channel, ...],
        timing: Timing,
        complaints: Complaints,
        *,
        spaced: bool = False,
    ) -> None:
        self.channels = channels
        self.timing = timing
        self.complaints = complaints
        self.spaced = spaced or not timing.has_rate
        self.live = False
        self._columns: Columns | None = None
        self._rest = b""
        self._inside = False
        self._next_ns = 0 if not timing.has_rate else time.time_ns()

    def feed(self, data: bytes) -> list[Sample]:
        """The samples of all lines that ``data`` completes."""
        *complete, self._rest = (self._rest + data).split(b"\n")
        if self._inside and complete:
            self._inside = False
            del complete[0]
        if len(self._rest) > LONGEST_LINE:
            self.complaints.note("MALFORMED", f"a line is longer than {LONGEST_LINE} bytes")
            self._rest = b"\0"  # what follows of it is no line that can be read either
        return self._samples(complete)

    def end(self) -> list[Sample]:
        """The sample of a last line without an end."""
        rest, self._rest = self._rest, b""
        return self._samples([rest])

    def begin_inside(self) -> None:
        """What comes next may begin within a line, which is then left out up to its end."""
        self._rest, self._inside = b"", True

    def _samples(self, lines: list[bytes]) -> list[Sample]:
        found = (self._sample(line.decode("utf-8", "replace")) for line in lines)
        return [sample for sample in found if sample is not None]

    def _sample(self, line: str) -> Sample | None:
        """Time and values of a line; None for one that has none."""
        line = line.strip()
        if not line:
            return None
        try:
            if line[0] in "{[":
                time_ns, values = self._from_json(json.loads(line))
            else:
                cells = SEPARATOR.split(line)
                if self._columns is None and looks_like_header(cells):
                    where = f"the first line of {self.complaints.source}"
                    self._columns = Columns.named(cells, self.channels, where=where)
                    return None
                time_ns, values = self._layout(len(cells)).read(cells)
        except (ValueError, OverflowError, RecursionError, DataError) as e:
            self.complaints.note("MALFORMED", f"a line was left out: {str(e)[:200]}")
            if self.spaced:
                self._next_ns += self.timing.step_ns
            return None
        return self._stamp(time_ns), values

    def _layout(self, cells: int) -> Columns:
        if self._columns is None:
            where = f"a line of {self.complaints.source}"
            self._columns = Columns.counted(cells, self.channels, where)
        return self._columns

    def _from_json(self, data: object) -> tuple[int | None, list[float]]:
        if isinstance(data, Mapping):
            values = [number(data.get(channel.name)) for channel in self.channels]
            if all(map(math.isnan, values)):
                raise ValueError("a JSON object holds none of the channels")
            stamp = next((data[name] for name in TIME_NAMES if name in data), None)
            return None if stamp is None else parse_time_ns(str(stamp)), values
        if not isinstance(data, list):
            raise ValueError("JSON that is neither an object nor an array")
        extra = len(data) - len(self.channels)
        if extra not in (0, 1):
            raise ValueError(f"a JSON array of {len(data)} for {len(self.channels)} channel(s)")
        return parse_time_ns(str(data[0])) if extra else None, [number(v) for v in data[extra:]]

    def _stamp(self, time_ns: int | None) -> int:
        if self.spaced and (time_ns is None or not self.timing.has_rate):
            self._next_ns += self.timing.step_ns
            return self._next_ns - self.timing.step_ns
        if time_ns is None:
            self.live = True
            return time.time_ns()
        return time_ns


def number(value: object) -> float:
    """A JSON value as a number; null is missing.

    Raises:
        ValueError: it is neither.
        OverflowError: it is beyond any float.
    """
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{str(value)[:40]!r} is no number")
    return float(value)
