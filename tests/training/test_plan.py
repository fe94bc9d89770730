from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.histories import history, sines

from edge_tsad.errors import ConfigError, DataError
from edge_tsad.training.plan import LONGEST_WINDOW, MINIMUM_HISTORY, SHORTEST_WINDOW, plan_timing


@settings(max_examples=40, deadline=None)
@given(
    period=st.integers(5, 3000),
    points=st.integers(MINIMUM_HISTORY, 8000),
    cap=st.none() | st.integers(0, 500),
)
def test_the_timing_is_valid_for_every_history(period: int, points: int, cap: int | None) -> None:
    timing = plan_timing(history(sines(points, period=period)), multiple=8, max_delay=cap)
    assert timing.window % 8 == 0
    assert SHORTEST_WINDOW <= timing.window <= min(LONGEST_WINDOW, points // 2)
    assert timing.delay <= (timing.window if cap is None else cap)
    assert timing.period <= timing.window
    assert timing.hop >= 1


def test_four_periods_rounded_down_and_a_delay_of_three_quarters_of_one() -> None:
    timing = plan_timing(history(sines(4000, period=151)), multiple=8)
    assert timing.window == 600
    assert 105 <= timing.delay <= 120
    assert timing.period == 151
    assert timing.has_rate


def test_short_periods_get_more_of_them_and_long_ones_are_cut() -> None:
    short = plan_timing(history(sines(4000, period=30)), multiple=8)
    assert short.window >= 240
    long = plan_timing(history(sines(9000, period=900)), multiple=8)
    assert long.window == LONGEST_WINDOW


def test_options_are_taken_or_refused_in_words() -> None:
    series = history(sines(4000, period=50))
    assert plan_timing(series, multiple=8, window=320).window == 320
    assert plan_timing(series, multiple=8, max_delay=0).delay == 0
    for window in (100, 56, 2008):
        with pytest.raises(ConfigError, match="window"):
            plan_timing(series, multiple=8, window=window)
    with pytest.raises(ConfigError, match="max_delay"):
        plan_timing(series, multiple=8, max_delay=-1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (sines(MINIMUM_HISTORY - 1), "too few"),
        (np.full((1000, 2), 5.0, np.float32), "constant"),
        (np.full((1000, 2), np.nan, np.float32), "no values"),
        (np.array([[1.0]], np.float32), "constant"),
    ],
)
def test_a_history_that_cannot_be_used_is_refused_in_one_sentence(
    values: np.ndarray, words: str
) -> None:
    with pytest.raises(DataError, match=words) as error:
        plan_timing(history(values), multiple=8)
    assert "\n" not in str(error.value)
