from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.histories import sines

from edge_tsad.training.distortion import KINDS, distort


def windows(count: int = 20, channels: int = 2) -> np.ndarray:
    return sines(count * 128, channels=channels, period=32).reshape(count, 128, channels)


@given(
    seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(list(KINDS)), channels=st.integers(1, 4)
)
def test_only_one_labelled_segment_of_at_most_a_period_changes(
    seed: int, kind: str, channels: int
) -> None:
    clean = windows(4, channels)
    distorted = distort(clean, 32, np.random.default_rng(seed), {kind: KINDS[kind]})
    assert distorted.values.dtype == np.float32
    np.testing.assert_array_equal(distorted.values[~distorted.changed], clean[~distorted.changed])
    for mark in distorted.changed:
        for channel in mark.T[mark.any(axis=0)]:
            marked = np.flatnonzero(channel)
            assert marked[-1] - marked[0] + 1 == len(marked) <= 32


@pytest.mark.parametrize("kind", list(KINDS))
def test_each_kind_changes_what_it_labels_and_is_drawn_by_the_seed(kind: str) -> None:
    clean = windows()
    first = distort(clean, 32, np.random.default_rng(1), {kind: KINDS[kind]})
    again = distort(clean, 32, np.random.default_rng(1), {kind: KINDS[kind]})
    np.testing.assert_array_equal(first.values, again.values)
    assert first.changed.any()
    for before, after, mark in zip(clean, first.values, first.changed, strict=True):
        for channel in np.flatnonzero(mark.any(axis=0)):
            assert np.any(before[:, channel] != after[:, channel])


def test_the_four_kinds_do_what_they_are_called() -> None:
    rng = np.random.default_rng(0)
    ramp = np.arange(100, dtype=np.float32)
    assert np.ptp(KINDS["replace"](ramp, 10, 20, rng)) == 0
    np.testing.assert_array_equal(KINDS["flip"](ramp, 10, 20, rng), ramp[10:30][::-1])
    stretched = KINDS["stretch"](ramp, 10, 20, rng)
    slope = np.diff(stretched)
    np.testing.assert_allclose(slope, slope[0], rtol=1e-3)
    assert 1 / 4 <= slope[0] <= 1 / 2
    assert stretched[0] == ramp[10]
    noise = KINDS["jitter"](ramp, 10, 80, rng) - ramp[10:90]
    assert 0.03 * 99 < noise.std() < 0.07 * 99


def test_subsets_of_the_channels_are_distorted_and_never_none() -> None:
    distorted = distort(windows(200, 3), 32, np.random.default_rng(2))
    counts = np.bincount(distorted.changed.any(axis=1).sum(axis=1), minlength=4)
    assert np.all(counts[1:] > 20)


def test_a_flat_window_gives_no_label_and_the_input_is_left_alone() -> None:
    flat = np.full((8, 64, 1), 3.0, np.float32)
    distorted = distort(flat, 16, np.random.default_rng(0))
    assert not distorted.changed.any()
    clean = windows()
    kept = clean.copy()
    distort(clean, 32, np.random.default_rng(0))
    np.testing.assert_array_equal(clean, kept)


def test_a_period_longer_than_the_window_is_no_trouble() -> None:
    clean = windows()
    assert distort(clean, 5000, np.random.default_rng(0)).values.shape == clean.shape
