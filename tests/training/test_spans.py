"""Stretches of a history by time or by row."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.histories import SECOND, history, sines

from edge_tsad.errors import ConfigError
from edge_tsad.training.spans import excluding, rows_of, span_text

COUNT = 100


def series(*, has_rate: bool = True, step_ns: int = SECOND):
    made = history(sines(COUNT), has_rate=has_rate)
    times = 1_700_000_000 * SECOND + np.arange(COUNT) * step_ns
    return dataclasses.replace(made, times_ns=times, step_ns=step_ns)


@given(
    st.integers(0, COUNT - 1),
    st.integers(0, COUNT - 1),
    st.booleans(),
    st.sampled_from([1, 333_333_333, 60 * SECOND, 86_400 * SECOND]),
)
def test_what_is_written_is_read_again(a: int, b: int, has_rate: bool, step_ns: int) -> None:
    first, last = sorted((a, b))
    made = series(has_rate=has_rate, step_ns=step_ns)
    assert rows_of(made, span_text(made, first, last)) == slice(first, last + 1)


def test_the_excluded_rows_are_missing_and_nothing_else_changes() -> None:
    made = series()
    left = excluding(made, ["10..12", "2023-11-14T22:13:40..2023-11-14T22:13:41Z"])
    assert np.flatnonzero(np.isnan(left.values[:, 0])).tolist() == [10, 11, 12, 20, 21]
    known = ~np.isnan(left.values)
    np.testing.assert_array_equal(left.values[known], made.values[known])
    assert not np.isnan(made.values).any()
    assert excluding(made, []) is made


def test_times_are_refused_where_there_are_none() -> None:
    with pytest.raises(ConfigError, match="no time stamps; give row numbers"):
        excluding(series(has_rate=False), ["2026-03-01..2026-03-02"])


@given(st.text("0123456789.-T:Z+ @x", max_size=30))
def test_any_text_is_a_stretch_or_a_sentence(text: str) -> None:
    try:
        rows = rows_of(series(), text)
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert 0 <= rows.start < rows.stop
