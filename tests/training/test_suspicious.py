"""What a history is suspected of."""

from __future__ import annotations

import dataclasses

import numpy as np
from oracles.histories import SECOND, history, short_timing, sines

from edge_tsad.training.fit import train
from edge_tsad.training.spans import rows_of
from edge_tsad.training.suspicious import HeldOut, suspects

QUICK = {"steps": 40, "window": 64, "batch": 8}


def block(*, first: int = 0, seed: int = 0, level: float = 1.0) -> HeldOut:
    noise = np.random.default_rng(seed).gamma(8, 0.1, 2000)
    return HeldOut(first + np.arange(2000), (level * noise).astype(np.float32))


def test_what_stands_out_is_found_with_its_place_and_the_rest_is_not() -> None:
    odd, plain = block(seed=1), block(first=2000, seed=2, level=10)
    odd.score[700:720] = 9.0
    odd.score[724:730] = 6.0
    odd.score[1500:1504] = 12.0
    found = suspects([odd, plain], short_timing())
    assert [(one.first, one.last) for one in found] == [(700, 729), (1500, 1503)]
    assert found[1].excess > found[0].excess > 1


def test_missing_scores_short_and_constant_blocks_give_none() -> None:
    gappy = block()
    gappy.score[::2] = np.nan
    constant = HeldOut(np.arange(500), np.ones(500, np.float32))
    nothing = HeldOut(np.arange(50), np.full(50, np.nan, np.float32))
    short = HeldOut(np.arange(5), np.arange(5, dtype=np.float32))
    assert suspects([gappy, constant, nothing, short], short_timing()) == []


def test_a_fault_in_the_history_is_told_with_the_option_that_leaves_it_out() -> None:
    values = sines(2400)
    values[1500:1520] = values[1500]
    series = history(values)
    late = dataclasses.replace(series, times_ns=1_700_000_000 * SECOND + series.times_ns)
    model = train(late, seed=0, options=dict(QUICK))
    spans = model.facts["suspicious"]
    (found,) = [rows_of(late, span) for span in spans]
    assert 1460 < found.start <= 1500
    assert 1520 <= found.stop < 1560
    (warning,) = (line for line in model.facts["warnings"] if "nothing was dropped" in line)
    assert f"--exclude {spans[0]}" in warning
    cleaned = train(late, seed=0, options=dict(QUICK), exclude=spans)
    assert not cleaned.facts["suspicious"]
