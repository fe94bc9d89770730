from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_tsad.runtime.rows import RowQueue, centred_sum, forward_fill


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 120)), max_size=30))
def test_a_queue_is_a_list_with_a_first_index(steps):
    queue: RowQueue[np.int64] = RowQueue(2, np.int64)
    queue.clear(100)
    first, model = 100, []
    for grown, dropped in steps:
        added = np.arange(grown) + first + len(model)
        queue.grow(grown)[:] = added[:, None]
        model += added.tolist()
        count = min(dropped, len(model))
        queue.drop_before(first + dropped)
        first, model = first + count, model[count:]
        assert (queue.first, queue.end) == (first, first + len(model))
        assert queue.rows(first, queue.end)[:, 1].tolist() == model
        assert queue.snapshot()[:, 0].tolist() == model


def test_rows_that_are_not_held_are_refused():
    queue: RowQueue[np.int64] = RowQueue(1, np.int64)
    queue.grow(5)
    queue.drop_before(2)
    assert len(queue.rows(2, 5)) == 3
    for low, high in ((1, 5), (2, 6)):
        with pytest.raises(IndexError):
            queue.rows(low, high)


def test_new_rows_are_zero_even_where_old_ones_lay():
    queue: RowQueue[np.float64] = RowQueue(1, np.float64)
    for start in range(0, 400, 40):
        rows = queue.grow(40)
        assert not rows.any()
        rows[:] = 7
        queue.drop_before(start + 40)


@settings(deadline=None)
@given(
    first=st.integers(-50, 50),
    rows=st.integers(1, 60),
    half=st.integers(0, 8),
    data=st.data(),
)
def test_centred_sums_equal_plain_ones_and_do_not_depend_on_the_cut(first, rows, half, data):
    values = np.random.default_rng(rows).normal(size=(rows, 2)) * 10.0 ** (rows % 9)
    queue: RowQueue[np.float64] = RowQueue(2, np.float64)
    queue.restore(first, values)
    end = first + rows - half
    if end <= first:
        return
    low = data.draw(st.integers(first, end - 1))
    sums = centred_sum(queue, low, end, 2 * half + 1, 2)
    for i, k in enumerate(range(low, end)):
        near = values[max(k - half - first, 0) : k + half + 1 - first]
        np.testing.assert_allclose(sums[i], near.sum(axis=0), rtol=1e-12, atol=1e-9)
    whole = centred_sum(queue, first, end, 2 * half + 1, 2)
    np.testing.assert_array_equal(sums, whole[low - first :])


def test_a_huge_value_leaves_no_trace_outside_its_span():
    queue: RowQueue[np.float64] = RowQueue(1, np.float64)
    values = np.full((40, 1), 0.1)
    values[13] = 1e300
    queue.restore(0, values)
    sums = centred_sum(queue, 2, 38, 5, 1)[:, 0]
    touched = np.abs(np.arange(2, 38) - 13) <= 2
    assert (sums[touched] > 1e299).all()
    np.testing.assert_allclose(sums[~touched], 0.5, rtol=1e-15)


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_forward_fill_is_the_loop(rows, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 3)).astype(np.float32)
    present = rng.random((rows, 3)) < rng.random()
    last = before = np.array([7, 8, 9], np.float32)
    filled = forward_fill(values, present, before)
    for row in range(rows):
        last = np.where(present[row], values[row], last)
        np.testing.assert_array_equal(filled[row], last)
