from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_tsad.errors import DataError
from edge_tsad.runtime.ring_buffer import RingBuffer


def rows(start: int, count: int, channels: int = 2) -> tuple[np.ndarray, np.ndarray]:
    values = np.arange(start, start + count, dtype=np.float32)[:, None] + np.zeros(
        (1, channels), np.float32
    )
    return values, (values % 3 > 0).astype(np.float32)


@settings(deadline=None)
@given(
    capacity=st.integers(1, 12), chunks=st.lists(st.integers(0, 30), max_size=12), data=st.data()
)
def test_every_view_is_the_end_of_the_series(capacity, chunks, data):
    ring, series = RingBuffer(capacity, 2), np.empty((0, 2), np.float32)
    for count in chunks:
        values, observed = rows(len(series), count)
        ring.extend(values, observed)
        series = np.concatenate([series, values])
        assert len(ring) == min(len(series), capacity)
        back = data.draw(st.integers(0, len(ring)))
        length = data.draw(st.integers(0, len(ring) - back))
        values, observed = ring.view(length, back)
        stop = len(series) - back
        np.testing.assert_array_equal(values, series[stop - length : stop])
        np.testing.assert_array_equal(observed, values % 3 > 0)


@settings(deadline=None)
@given(
    before=st.integers(0, 40),
    count=st.integers(1, 4),
    length=st.integers(1, 6),
    hop=st.integers(1, 3),
)
def test_windows_are_views_each_a_hop_later(before, count, length, hop):
    ring = RingBuffer(20, 2)
    ring.extend(*rows(0, before + 20))
    values, observed = ring.windows(count, length, hop, back=2)
    last = before + 20 - 2
    for i in range(count):
        stop = last - (count - 1 - i) * hop
        np.testing.assert_array_equal(values[i, :, 0], np.arange(stop - length, stop))
        np.testing.assert_array_equal(observed[i], values[i] % 3 > 0)


def test_views_copy_nothing_wherever_they_lie():
    ring = RingBuffer(7, 3)
    for _ in range(20):
        ring.extend(*rows(0, 1, 3))
        values, observed = ring.view(len(ring))
        assert np.shares_memory(values, ring._values)
        assert np.shares_memory(observed, ring._observed)
        assert values.flags.c_contiguous
        windows, _ = ring.windows(1, len(ring), 1)
        assert np.shares_memory(windows, ring._values)
    windows, masks = ring.windows(3, 3, 2)
    assert np.shares_memory(windows, ring._values)
    assert np.shares_memory(masks, ring._observed)


def test_nobody_can_write_through_a_view():
    ring = RingBuffer(4, 1)
    ring.extend(*rows(0, 4, 1))
    for array in (*ring.view(2), *ring.windows(1, 2, 1), *ring.windows(2, 2, 1)):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    ring.extend(*rows(4, 1, 1))
    assert ring.view(4)[0][:, 0].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(("length", "back"), [(4, 0), (1, 3), (-1, 0), (1, -1)])
def test_a_run_that_is_not_held_is_refused(length, back):
    ring = RingBuffer(5, 1)
    ring.extend(*rows(0, 3, 1))
    with pytest.raises(IndexError):
        ring.view(length, back)


def test_clear_forgets_and_restore_brings_back():
    ring = RingBuffer(5, 2)
    ring.extend(*rows(0, 13))
    state, newest = ring.snapshot(), ring.snapshot(2)
    ring.clear()
    assert len(ring) == 0
    ring.restore(state)
    assert ring.view(5)[0][:, 0].tolist() == [8, 9, 10, 11, 12]
    ring.restore(newest)
    assert len(ring) == 2
    assert ring.view(2)[0][:, 0].tolist() == [11, 12]
    with pytest.raises(DataError, match="do not fit 3 channel"):
        RingBuffer(5, 3).restore(state)


@pytest.mark.parametrize(("capacity", "channels"), [(0, 1), (1, 0)])
def test_nothing_cannot_be_held(capacity, channels):
    with pytest.raises(ValueError, match="ring buffer"):
        RingBuffer(capacity, channels)
