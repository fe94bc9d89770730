"""Plain aligned text: what a gateway's terminal shows, without any package for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["duration", "number", "pairs", "printable", "scheme_cell", "table"]

UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns two blanks apart; nothing where there are no rows."""
    if not rows:
        return []
    lines = [[printable(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    padded = (zip(line, widths, strict=True) for line in lines)
    return ["  ".join(cell.ljust(width) for cell, width in line).rstrip() for line in padded]


def pairs(entries: Mapping[str, str]) -> list[str]:
    """Lines of a name and its value, the values aligned."""
    width = max((len(name) for name in entries), default=0)
    return [f"{name.ljust(width)}  {value}".rstrip() for name, value in entries.items()]


def duration(seconds: float | None) -> str:
    """Seconds in the largest unit that is at least one; ``-`` where there is no rate."""
    if seconds is None:
        return "-"
    for size, unit in UNITS:
        if abs(seconds) >= size:
            return f"{seconds / size:.4g} {unit}"
    return "0 s" if seconds == 0 else f"{seconds:.3g} s"


def number(value: float) -> str:
    """A count with thousands set apart."""
    return f"{value:,.0f}"


def printable(text: str) -> str:
    """``text`` with everything that could command a terminal written as an escape."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def scheme_cell(scheme: str, facts: Mapping[str, Any]) -> str:
    """The scheme, and how many large layers compute in float32 all the same."""
    count = len(facts.get("in_float") or ())
    return f"{scheme} ({count} {'layer' if count == 1 else 'layers'} float)" if count else scheme
