from __future__ import annotations

import io
import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.windows import ConstantBackend, NumpyBackend

from edge_tsad.errors import DataError
from edge_tsad.runtime.alerting import AlertEvent, AlertPolicy
from edge_tsad.runtime.resampler import Resampler
from edge_tsad.runtime.scorer import StreamScorer
from edge_tsad.runtime.stream import StreamPipeline
from edge_tsad.types import Channel, Now, PolicySettings, Reading, Scores, Timing

STEP = 10**9
TIMING = Timing(STEP, window=16, hop=4, delay=8, smoothing=3, period=12)


def pipeline(lateness_ns: int = 2 * STEP) -> StreamPipeline:
    channels = (Channel("a"), Channel("b", aggregate="last", hold=3))
    return StreamPipeline(
        Resampler(STEP, channels, lateness_ns),
        StreamScorer(TIMING, 2, NumpyBackend(4)),
        AlertPolicy(6.0, 2.0, PolicySettings(minimum_duration=2, resolve_after=3, update_every=5)),
    )


def dirty_rows(seed: int, count: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """Jittered, swapped, repeated and missing readings with a burst and a long gap."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(0, STEP, count)
    steps[rng.random(count) < 0.03] = 5 * STEP
    steps[rng.integers(count)] = 40 * STEP
    times = 10**18 + np.cumsum(steps) + rng.normal(0, 0.8 * STEP, count).astype(np.int64)
    values = rng.normal(size=(count, 2)).astype(np.float32)
    values[50:80] += 8
    values[rng.random(values.shape) < 0.3] = np.nan
    return times, values


def joined(outputs: list[tuple[Scores, list[AlertEvent]]]) -> tuple[Scores, list[AlertEvent]]:
    events = [event for _, events in outputs for event in events]
    return Scores.join([scores for scores, _ in outputs]), events


def assert_same(
    left: tuple[Scores, list[AlertEvent]], right: tuple[Scores, list[AlertEvent]]
) -> None:
    for name in Scores.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(left[0], name), getattr(right[0], name), name)
    assert [str(event) for event in left[1]] == [str(event) for event in right[1]]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 160), max_size=6))
def test_scores_and_alerts_do_not_depend_on_chunks_or_restarts(seed, bounds):
    times, values = dirty_rows(seed)
    whole = pipeline()
    wanted = joined([whole.extend(times, values), whole.finish()])
    stream, outputs = pipeline(), []
    edges = [0, *sorted(bounds), len(times)]
    for low, high in itertools.pairwise(edges):
        outputs.append(stream.extend(times[low:high], values[low:high]))
        file = io.BytesIO()
        np.savez(file, **stream.snapshot())
        file.seek(0)
        stream = pipeline()
        with np.load(file, allow_pickle=False) as state:
            stream.restore(dict(state))
    assert_same(joined([*outputs, stream.finish()]), wanted)


def test_the_dirty_rows_do_raise_alerts():
    stream = pipeline()
    scores, events = joined([stream.extend(*dirty_rows(1)), stream.finish()])
    assert len(scores) > 50
    assert {"new", "end"} <= {event.kind for event in events}


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_reading_by_reading_is_the_same(seed):
    times, values = dirty_rows(seed)
    whole, stream = pipeline(), pipeline()
    outputs = [
        stream.push(Reading(channel, int(t), float(row[channel])))
        for t, row in zip(times, values, strict=True)
        for channel in (0, 1)
    ]
    assert_same(
        joined([*outputs, stream.finish()]), joined([whole.extend(times, values), whole.finish()])
    )


def test_time_alone_brings_out_what_is_due():
    stream = pipeline(lateness_ns=0)
    times = 10**18 + np.arange(40) * STEP
    stream.extend(times, np.ones((40, 2), np.float32))
    newest = stream.scorer.warmup_remaining
    scores, _ = stream.advance(Now(0.0, int(times[-1]) + 2 * STEP))
    assert newest == 0
    assert scores.index.tolist() == [int(times[-1]) // STEP - TIMING.delay]


def test_a_state_that_does_not_fit_is_refused():
    state = pipeline().snapshot()
    with pytest.raises(DataError, match="remove it to start afresh"):
        pipeline(lateness_ns=0).restore(state)
    del state["scorer.sums"]
    with pytest.raises(DataError, match=r"has no scorer\.sums"):
        pipeline().restore(state)


def test_replay_is_far_faster_than_twenty_thousand_samples_a_second():
    timing = Timing(STEP, window=256, hop=16, delay=64, smoothing=33, period=64)
    stream = StreamPipeline(
        Resampler(STEP, (Channel("a"),)),
        StreamScorer(timing, 1, ConstantBackend()),
        AlertPolicy(1e9, 0.0, PolicySettings()),
    )
    times = 10**18 + np.arange(100_000) * STEP
    values = np.random.default_rng(0).normal(size=(len(times), 1)).astype(np.float32)
    begin = time.process_time()
    for low in range(0, len(times), 1000):
        stream.extend(times[low : low + 1000], values[low : low + 1000])
    assert len(times) / (time.process_time() - begin) > 20_000
