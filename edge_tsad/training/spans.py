"""Stretches of a series as people write them: ``FROM..TO``, by time stamps or by row numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from edge_tsad.errors import ConfigError, DataError
from edge_tsad.training.series import Series

__all__ = ["excluding", "rows_of", "span_text"]


def excluding(history: Series, spans: Sequence[str]) -> Series:
    """``history`` with the values of ``spans`` missing.

    Raises:
        ConfigError: a span is none, ends before it begins, or holds no row.
        DataError: no value is left.
    """
    if not spans:
        return history
    values = history.values.copy()
    for span in spans:
        values[rows_of(history, span)] = np.nan
    if np.isnan(values).all():
        raise DataError(f"--exclude: leaves nothing of {history.name}; exclude less")
    return dataclasses.replace(history, values=values)


def rows_of(series: Series, span: str) -> slice:
    """The rows from FROM to TO, both included.

    Both are row numbers from 0, or both are ISO 8601 times: UTC where they name no zone, midnight
    where they name no hour.

    Raises:
        ConfigError: it cannot be read, ends before it begins, or holds no row.
    """
    first, dots, last = (part.strip() for part in span.partition(".."))
    if not (dots and first and last):
        raise ConfigError(
            f"--exclude: {span!r} is not FROM..TO, such as 2026-03-01T08:00..2026-03-01T09:30 "
            "or 1200..1260"
        )
    if first.isdecimal() and last.isdecimal():
        low, high, least, most = int(first), int(last), 0, len(series) - 1
        begin, end = low, high + 1
    else:
        low, high = (_time_ns(series, span, part) for part in (first, last))
        least, most = int(series.times_ns[0]), int(series.times_ns[-1])
        begin = int(np.searchsorted(series.times_ns, low))
        end = int(np.searchsorted(series.times_ns, high, "right"))
    if high < low:
        raise ConfigError(f"--exclude: {span!r} ends before it begins; write the earlier one first")
    if high < least or low > most or begin >= end:
        raise ConfigError(
            f"--exclude: {span!r} holds no row of {series.name}, which runs from "
            f"{span_text(series, 0, len(series) - 1)}"
        )
    return slice(begin, end)


def span_text(series: Series, first: int, last: int) -> str:
    """Rows ``first`` to ``last``, both included, as ``FROM..TO``: times, or numbers without a rate.

    ``rows_of`` gives the same rows.
    """
    if not series.has_rate:
        return f"{first}..{last}"
    return "..".join(_iso(int(series.times_ns[row])) for row in (first, last))


def _iso(time_ns: int) -> str:
    return pd.Timestamp(time_ns, tz="UTC").isoformat().replace("+00:00", "Z")


def _time_ns(series: Series, span: str, text: str) -> int:
    if not series.has_rate:
        raise ConfigError(
            f"--exclude: {span!r}: {series.name} has no time stamps; give row numbers, such as "
            "1200..1260"
        )
    try:
        if not text[0].isdecimal():  # pandas also knows "now" and "NaT"
            raise ValueError(text)
        time = pd.Timestamp(text)
        known = time.tz_localize("UTC") if time.tzinfo is None else time
        return int(known.as_unit("ns").value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ConfigError(
            f"--exclude: {text!r} in {span!r} is no ISO 8601 time, such as 2026-03-01T08:00, and "
            "no pair of row numbers"
        ) from error
