from __future__ import annotations

import io
import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_tsad.errors import ConfigError, DataError
from edge_tsad.runtime.resampler import Resampler
from edge_tsad.types import Cells, Channel, Now, Reading

STEP = 10
CHANNELS = (
    Channel("a"),
    Channel("b", aggregate="last", hold=2),
    Channel("c", aggregate="max", hold=5),
)
ROW = tuple[int, list[float]]


def naive_cells(rows: list[ROW], channels: tuple[Channel, ...], lateness: int) -> Cells:
    """By the definition: every reading is kept until the end, one cell after the other."""
    kept: dict[tuple[int, int], list[tuple[int, float]]] = {}
    latest = None
    for time_ns, values in rows:
        watermark = None if latest is None else latest - lateness
        closed = watermark is not None and (time_ns // STEP + 1) * STEP <= watermark
        latest = time_ns if latest is None else max(latest, time_ns)
        for c, value in enumerate(values):
            if not closed and not math.isnan(value):
                kept.setdefault((time_ns // STEP, c), []).append((time_ns, value))
    out: list[tuple[int, list[float], list[float]]] = []
    if latest is None or not kept:
        return Cells.empty(len(channels))
    first = min(k for k, _ in kept)
    for k in range(first, latest // STEP + 1):
        values, observed = [0.0] * len(channels), [0.0] * len(channels)
        for c, channel in enumerate(channels):
            for age in range(channel.hold + 1):
                if (k - age, c) in kept:
                    values[c] = aggregate(kept[k - age, c], channel)
                    observed[c] = 1.0
                    break
        if any(observed):
            out.append((k, values, observed))
    columns = zip(*out, strict=True)
    index, values_, observed_ = columns
    return Cells(np.array(index), np.array(values_, np.float32), np.array(observed_, np.float32))


def aggregate(readings: list[tuple[int, float]], channel: Channel) -> float:
    if channel.aggregate == "mean":
        return sum(value for _, value in readings) / len(readings)
    if channel.aggregate == "max":
        return max(value for _, value in readings)
    newest = max(t for t, _ in readings)
    return [value for t, value in readings if t == newest][-1]


value_lists = st.lists(
    st.sampled_from([math.nan, 0.1, -7.0, 3e7, 1.5, -0.3]), min_size=3, max_size=3
)


@st.composite
def row_lists(draw: st.DrawFn) -> list[ROW]:
    """Times that go forth and back, stand still, and jump."""
    steps = draw(st.lists(st.sampled_from([0, 1, 3, 10, 14, -1, -8, -25, 90]), max_size=40))
    start = draw(st.integers(-100, 10**15))
    times = itertools.accumulate(steps, initial=start)
    return [(t, draw(value_lists)) for t in times]


def arrays(rows: list[ROW]) -> tuple[np.ndarray, np.ndarray]:
    times = np.array([t for t, _ in rows], np.int64)
    return times, np.array([values for _, values in rows], np.float32).reshape(-1, 3)


def assert_same(left: Cells, right: Cells) -> None:
    np.testing.assert_array_equal(left.index, right.index)
    np.testing.assert_array_equal(left.values, right.values)
    np.testing.assert_array_equal(left.observed, right.observed)
    assert left.values.dtype == left.observed.dtype == np.float32


def pushed(resampler: Resampler, rows: list[ROW]) -> Cells:
    parts = [Cells.empty(3)]
    for time_ns, values in rows:
        parts += [
            resampler.push(Reading(channel, time_ns, value)) for channel, value in enumerate(values)
        ]
    return Cells.join(parts)


@settings(deadline=None)
@given(row_lists(), st.sampled_from([0, 1, 10, 37]))
def test_cells_are_those_of_the_definition(rows, lateness):
    resampler = Resampler(STEP, CHANNELS, lateness)
    cells = Cells.join([resampler.extend(*arrays(rows)), resampler.finish()])
    wanted = naive_cells(rows, CHANNELS, lateness)
    np.testing.assert_array_equal(cells.index, wanted.index)
    np.testing.assert_array_equal(cells.observed, wanted.observed)
    np.testing.assert_allclose(cells.values, wanted.values, rtol=1e-6)


@settings(deadline=None)
@given(row_lists(), st.sampled_from([0, 10, 37]), st.lists(st.integers(0, 40), max_size=5))
def test_extend_in_any_chunks_is_push_one_by_one(rows, lateness, bounds):
    one, chunked = Resampler(STEP, CHANNELS, lateness), Resampler(STEP, CHANNELS, lateness)
    cells = pushed(one, rows)
    edges = [0, *sorted(bounds), len(rows)]
    parts = [chunked.extend(*arrays(rows[a:b])) for a, b in itertools.pairwise(edges)]
    assert_same(Cells.join(parts), cells)
    assert (one.late, one.rejected) == (chunked.late, chunked.rejected)
    assert one.latest_ns == chunked.latest_ns
    assert_same(chunked.finish(), one.finish())


@settings(deadline=None)
@given(row_lists(), st.integers(0, 40))
def test_a_snapshot_continues_as_if_nothing_had_happened(rows, at):
    resampler = Resampler(STEP, CHANNELS, 25)
    resampler.extend(*arrays(rows[:at]))
    file = io.BytesIO()
    np.savez(file, **resampler.snapshot())
    file.seek(0)
    resumed = Resampler(STEP, CHANNELS, 25)
    with np.load(file, allow_pickle=False) as state:
        resumed.restore(dict(state))
    assert_same(pushed(resumed, rows[at:]), resampler.extend(*arrays(rows[at:])))
    assert (resumed.late, resumed.rejected) == (resampler.late, resampler.rejected)
    assert_same(resumed.finish(), resampler.finish())


@settings(deadline=None)
@given(row_lists(), st.integers(0, 40))
def test_nothing_emitted_depends_on_what_comes_later(rows, at):
    resampler, told = Resampler(STEP, CHANNELS), Resampler(STEP, CHANNELS)
    known, all_of_it = resampler.extend(*arrays(rows[:at])), told.extend(*arrays(rows))
    n = len(known)
    assert_same(known, Cells(all_of_it.index[:n], all_of_it.values[:n], all_of_it.observed[:n]))


def test_a_snapshot_of_another_grid_is_refused():
    state = Resampler(STEP, CHANNELS).snapshot()
    for other in (Resampler(STEP + 1, CHANNELS), Resampler(STEP, CHANNELS[:2])):
        with pytest.raises(DataError, match="remove it to start afresh"):
            other.restore(state)


def test_what_comes_long_after_a_snapshot_is_believed():
    resampler = Resampler(STEP, CHANNELS)
    resampler.advance(now(10**15))
    resumed = Resampler(STEP, CHANNELS)
    resumed.restore(resampler.snapshot())
    resumed.push(Reading(0, 10**15 + 3600 * 10**9, 1.0))  # an hour's downtime
    assert resumed.rejected == 0
    resumed.advance(now(10**15))
    resumed.push(Reading(0, 10**15 + 3600 * 10**9, 1.0))
    assert resumed.rejected == 1


def test_channels_that_arrive_apart_meet_within_the_lateness():
    resampler = Resampler(STEP, (Channel("a"), Channel("b")), lateness_ns=15)
    parts = [
        resampler.push(Reading(channel, t, value))
        for channel, t, value in [(0, 1, 1.0), (0, 11, 2.0), (0, 21, 3.0), (1, 2, 9.0), (0, 25, 0)]
    ]
    assert [len(part) for part in parts] == [0, 0, 0, 0, 1]
    assert parts[-1].values.tolist() == [[1, 9]]
    assert resampler.push(Reading(1, 3, 9.0)).index.tolist() == []
    assert resampler.late == 1


def test_missing_values_are_zero_and_unobserved_and_empty_cells_left_out():
    resampler = Resampler(STEP, (Channel("a"), Channel("b")))
    nan = math.nan
    cells = resampler.extend(
        np.array([5, 15, 95, 105]), np.array([[1, nan], [nan, nan], [nan, 2], [nan, nan]], "f4")
    )
    assert cells.index.tolist() == [0, 9]
    assert cells.values.tolist() == [[1, 0], [0, 2]]
    assert cells.observed.tolist() == [[1, 0], [0, 1]]


def test_a_held_value_is_observed_and_runs_out():
    resampler = Resampler(STEP, (Channel("a", hold=2), Channel("b")))
    values = np.array([[1, 5], [math.nan, 6]], np.float32)
    cells = resampler.extend(np.array([5, 95]), values)
    assert cells.index.tolist() == [0, 1, 2]
    assert cells.values.tolist() == [[1, 5], [1, 0], [1, 0]]
    assert resampler.finish().values.tolist() == [[0, 6]]


def test_duplicates_change_neither_mean_nor_last_nor_maximum():
    rows = [(t, [t * 0.5, t, -t]) for t in range(100, 200, 4)]
    once, twice = Resampler(STEP, CHANNELS), Resampler(STEP, CHANNELS)
    assert_same(
        once.extend(*arrays(rows)), twice.extend(*arrays([row for row in rows for _ in "ab"]))
    )


def test_a_clock_that_goes_back_is_late_and_costs_nothing_else():
    resampler = Resampler(STEP, CHANNELS)
    resampler.extend(*arrays([(1000, [1, 1, 1])]))
    assert len(resampler.extend(*arrays([(t, [7, math.nan, 7]) for t in range(500, 900)]))) == 0
    assert resampler.late == 800
    assert resampler.extend(*arrays([(1011, [1, 1, 1])])).index.tolist() == [100]


@pytest.mark.parametrize(
    "time_ns",
    [math.nan, math.inf, 1.5, "now", None, -(2**63), 2**63, 2**62, -(2**61), 10**30],
)
def test_a_time_that_is_none_is_rejected(time_ns):
    resampler = Resampler(STEP, CHANNELS)
    assert len(resampler.push(Reading(0, time_ns, 1.0))) == 0
    assert (resampler.rejected, resampler.late, resampler.latest_ns) == (1, 0, None)
    resampler.push(Reading(0, time_ns, math.nan))
    assert resampler.rejected == 1


def test_times_at_the_ends_of_what_is_believed_overflow_nothing():
    for step, lateness in ((1, 0), (1, 2**60 - 1), (2**62, 10)):
        resampler = Resampler(step, CHANNELS, lateness)
        for t in (-(2**61) + 1, 0, 2**62 - 1, np.iinfo(np.int64).min, np.iinfo(np.int64).max):
            cells = resampler.extend(np.array([t]), np.ones((1, 3), np.float32))
            assert len(cells) <= 6
        assert resampler.rejected == 6
        assert len(resampler.finish()) >= 1


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e300])
def test_an_infinite_value_is_rejected_but_its_time_counts(value):
    pushed_, extended = Resampler(STEP, CHANNELS), Resampler(STEP, CHANNELS)
    for resampler in (pushed_, extended):
        resampler.push(Reading(0, 5, 1.0))
    pushed_.push(Reading(0, 6, value))  # into the open cell
    closed = [pushed_.push(Reading(0, 15, value))]
    closed.append(
        extended.extend(np.array([6, 15]), np.array([[value, math.nan, math.nan]] * 2, "f8"))
    )
    for resampler, cells in zip((pushed_, extended), closed, strict=True):
        assert resampler.rejected == 2
        assert cells.values[:, 0].tolist() == [1.0]


def test_a_jump_of_decades_allocates_only_what_is_held():
    channels = (Channel("a", hold=100), Channel("b"))
    resampler = Resampler(1, channels)
    resampler.extend(np.array([0]), np.ones((1, 2), np.float32))
    cells = resampler.extend(np.array([2**61]), np.ones((1, 2), np.float32))
    assert cells.index.tolist() == list(range(101))


def test_a_stuck_clock_needs_no_more_memory():
    resampler = Resampler(STEP, CHANNELS)
    for _ in range(1000):
        resampler.push(Reading(1, 5, 1.0))
    assert sum(array.nbytes for array in resampler.snapshot().values()) < 1000


def now(wall_ns: int, *, synchronised: bool = True) -> Now:
    return Now(monotonic_s=0.0, wall_ns=wall_ns, synchronised=synchronised)


def test_the_wall_clock_closes_what_a_stalled_channel_left_open():
    resampler = Resampler(STEP, (Channel("a"), Channel("b", hold=1)), lateness_ns=5)
    resampler.push(Reading(0, 101, 1.0))
    resampler.push(Reading(1, 103, 2.0))
    assert len(resampler.advance(now(124))) == 0
    assert len(resampler.advance(now(10**6, synchronised=False))) == 0
    # The cell ends at 110; lateness and the step's grace make it 125.
    assert resampler.advance(now(125)).values.tolist() == [[1, 2]]
    assert resampler.advance(now(135)).values.tolist() == [[0, 2]]
    assert len(resampler.advance(now(10**6))) == 0
    resampler.push(Reading(0, 104, 1.0))
    assert resampler.late == 1


def test_a_reading_far_ahead_of_the_wall_clock_does_not_close_the_present():
    resampler = Resampler(10**9, CHANNELS)
    present, ahead = 10**18, 10**18 + 302 * 10**9
    resampler.advance(now(present))
    assert len(resampler.push(Reading(0, ahead, 1.0))) == 0
    resampler.extend(np.array([ahead]), np.ones((1, 3), np.float32))
    assert resampler.rejected == 4
    resampler.push(Reading(0, present + 1, 5.0))
    assert (resampler.late, resampler.latest_ns) == (0, present + 1)
    resampler.advance(now(0, synchronised=False))
    assert len(resampler.push(Reading(0, ahead, 1.0))) > 0


def test_a_time_no_clock_can_have_is_not_believed():
    resampler = Resampler(STEP, CHANNELS)
    resampler.push(Reading(0, 5, 1.0))
    assert len(resampler.advance(now(2**80))) == 0
    assert len(resampler.advance(now(-(2**80)))) == 0


def test_finish_closes_the_newest_cell_and_may_be_followed_by_more():
    resampler = Resampler(STEP, CHANNELS)
    assert len(resampler.finish()) == 0
    resampler.push(Reading(0, 5, 1.0))
    assert resampler.finish().index.tolist() == [0]
    assert len(resampler.finish()) == 0
    resampler.push(Reading(0, 9, 1.0))
    assert resampler.late == 1
    assert resampler.push(Reading(0, 21, 1.0)).index.tolist() == []


@pytest.mark.parametrize(
    ("times", "values"),
    [
        (np.zeros(2), np.zeros((2, 3))),
        (np.zeros((2, 1), int), np.zeros((2, 3))),
        (np.zeros(2, int), np.zeros((2, 2))),
        (np.zeros(3, int), np.zeros((2, 3))),
    ],
)
def test_arrays_that_do_not_fit_are_refused(times, values):
    with pytest.raises(DataError):
        Resampler(STEP, CHANNELS).extend(times, values)


@pytest.mark.parametrize("channel", [-1, 3])
def test_a_channel_that_does_not_exist_is_refused(channel):
    with pytest.raises(DataError, match="not one of 0 … 2"):
        Resampler(STEP, CHANNELS).push(Reading(channel, 0, 1.0))


@pytest.mark.parametrize(
    "arguments",
    [
        (0, CHANNELS, 0),
        (1, (), 0),
        (1, CHANNELS, -1),
        (1, CHANNELS, 2**60),
        (1, (Channel("a", hold=10**7),), 0),
    ],
)
def test_settings_out_of_range_are_refused(arguments):
    with pytest.raises(ConfigError):
        Resampler(*arguments)


def test_a_million_clean_rows_take_about_a_second_at_most():
    times = np.arange(1_000_000) * 10**9 + 10**18
    values = np.random.default_rng(0).normal(size=(len(times), 2)).astype(np.float32)
    resampler = Resampler(10**9, (Channel("a"), Channel("b", aggregate="last")))
    begin = time.process_time()
    cells = resampler.extend(times, values)
    assert time.process_time() - begin < 2  # a fraction of that, but machines differ
    np.testing.assert_array_equal(cells.values, values[:-1])
