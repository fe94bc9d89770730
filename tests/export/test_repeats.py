"""Windows that come again: the same answers, without running the model again."""

from __future__ import annotations

import numpy as np
import pytest

from export import repeats
from export.repeats import Repeats


class Counting:
    """Scores by sums of values and masks; keeps what it was asked."""

    name = "counting"

    def __init__(self, max_batch):
        self.max_batch, self.asked = max_batch, []

    def score(self, windows, observed):
        assert 0 < len(windows) <= self.max_batch
        self.asked += [float(window.sum()) for window in windows]
        return {"score": (windows + 10 * observed).sum(axis=2), "expected": 2 * windows}


def batches(rng, count, size):
    """Batches of windows of which there are 12 kinds, some with a missing point."""
    kinds = rng.normal(size=(12, 5, 2)).astype(np.float32)
    masks = np.ones_like(kinds)
    masks[::3, 2] = 0
    kinds[1::3] = kinds[::3]  # the same values, another mask
    for _ in range(count):
        chosen = rng.integers(len(kinds), size=size)
        yield kinds[chosen], masks[chosen]


@pytest.mark.parametrize("most", [1, 4, 1000])
@pytest.mark.parametrize("size", [1, 7])
def test_answers_are_those_of_the_backend(monkeypatch, most, size):
    monkeypatch.setattr(repeats, "MOST", most)
    once, plain = Counting(size), Counting(size)
    repeated = Repeats(once)
    assert (repeated.name, repeated.max_batch) == ("counting", size)
    for windows, observed in batches(np.random.default_rng(0), 100, size):
        answers, truth = (each.score(windows, observed) for each in (repeated, plain))
        assert answers.keys() == truth.keys()
        for name, values in truth.items():
            assert answers[name].dtype == np.float32
            assert np.array_equal(answers[name], values)
    assert len(once.asked) < len(plain.asked)
    if most == 1000:
        assert len(once.asked) == 12


def test_the_caller_may_write_into_an_answer():
    repeated, ones = Repeats(Counting(1)), np.ones((1, 5, 2), np.float32)
    repeated.score(ones, ones)["score"][:] = -1
    assert (repeated.score(ones, ones)["score"] > 0).all()
