"""Rows of text as samples: which cell is the time, which is which channel, and what a cell says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from edge_tsad.errors import DataError
from edge_tsad.types import Channel

__all__ = ["TIME_NAMES", "Columns", "looks_like_header", "parse_number", "parse_time_ns"]

TIME_NAMES = ("time", "timestamp", "datetime", "date", "ts", "t")
MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "-"})
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# An epoch number below the limit is in the unit before it; 1e11 s is the year 5138.
UNITS = ((10**11, 10**9), (10**14, 10**6), (10**17, 10**3))
LARGEST_NS = 2**63 - 1


def parse_number(text: str) -> float:
    """The number in a cell; NaN for an empty one and for the usual words for "missing".

    Raises:
        ValueError: it is no finite number.
    """
    text = text.strip()
    if text.lower() in MISSING:
        return math.nan
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number


def parse_time_ns(text: str) -> int:
    """Nanoseconds since the Unix epoch of ISO 8601 text (UTC unless it says otherwise) or a number.

    A number counts seconds, milliseconds, microseconds or nanoseconds since the epoch; its size
    tells which.

    Raises:
        ValueError: it is neither, or beyond 64 bits of nanoseconds.
    """
    text = text.strip()
    try:
        number = Decimal(text)
    except InvalidOperation:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        since = moment - EPOCH
        return ((since.days * 86_400 + since.seconds) * 10**6 + since.microseconds) * 1000
    if not number.is_finite():
        raise ValueError(f"{text} is no time")
    scale = next((scale for limit, scale in UNITS if abs(number) < limit), 1)
    nanoseconds = int(number * scale)
    if abs(nanoseconds) > LARGEST_NS:
        raise ValueError(f"{text} is beyond 64 bits of nanoseconds")
    return nanoseconds


def looks_like_header(cells: Sequence[str]) -> bool:
    """Whether a first row names columns: at least one cell is neither a number nor a time."""
    return not all(is_value(cell) for cell in cells)


def is_value(cell: str) -> bool:
    try:
        parse_number(cell)
    except ValueError:
        try:
            parse_time_ns(cell)
        except ValueError:
            return False
    return True


@dataclass(frozen=True, slots=True)
class Columns:
    """Positions in a row of ``width`` cells: the time's (None: it has none) and the channels'."""

    width: int
    time: int | None
    channels: tuple[int, ...]

    @classmethod
    def named(
        cls, header: Sequence[str], channels: Sequence[Channel], time: str = "", where: str = ""
    ) -> Columns:
        """From a header; ``time`` names the time column, else the first usual name is taken.

        Raises:
            DataError: a channel or the time column is not in the header.
        """
        names = [name.strip() for name in header]
        absent = [channel.name for channel in channels if channel.name not in names]
        if absent:
            raise DataError(
                f"{where}: has no column {', '.join(map(repr, absent))}; its columns are "
                f"{', '.join(map(repr, names[:20]))}"
            )
        if time and time not in names:
            raise DataError(f"{where}: has no time column {time!r}")
        wanted = tuple(names.index(channel.name) for channel in channels)
        if time:
            return cls(len(names), names.index(time), wanted)
        usual = [
            i for i, name in enumerate(names) if name.lower() in TIME_NAMES and i not in wanted
        ]
        return cls(len(names), usual[0] if usual else None, wanted)

    @classmethod
    def counted(cls, cells: int, channels: Sequence[Channel], where: str = "") -> Columns:
        """Without a header: one cell per channel in their order, after a time or without one.

        Raises:
            DataError: there are neither C nor C + 1 cells.
        """
        count = len(channels)
        if cells not in (count, count + 1):
            raise DataError(
                f"{where}: has {cells} columns and no header; the bundle needs its {count} "
                f"channel(s) ({', '.join(c.name for c in channels[:8])}), with or without a time "
                "before them"
            )
        first = cells - count
        return cls(cells, 0 if first else None, tuple(range(first, cells)))

    def read(self, cells: Sequence[str]) -> tuple[int | None, list[float]]:
        """Time in nanoseconds (None: there is no such column) and the channels' values.

        Raises:
            ValueError: another number of cells, or a time or value that is none.
        """
        if len(cells) != self.width:
            raise ValueError(f"has {len(cells)} cells instead of {self.width}")
        time_ns = None if self.time is None else parse_time_ns(cells[self.time])
        return time_ns, [parse_number(cells[i]) for i in self.channels]
