"""The gate at the level of alerts: a file must alert when the float model does, and not otherwise.

A stream of normal operation, first as it was and then again and again with an anomaly injected in
each stretch, goes through Resampler, StreamScorer, Threshold and AlertPolicy, once with the float
model and once with the file, each with the threshold of its own scores. Alerts are matched one to
one by their onsets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_tsad.runtime.alerting import AlertPolicy
from edge_tsad.runtime.backends.base import Backend
from edge_tsad.runtime.resampler import Resampler
from edge_tsad.runtime.scorer import StreamScorer
from edge_tsad.runtime.stream import StreamPipeline
from edge_tsad.runtime.threshold import Threshold
from edge_tsad.training.distortion import KINDS, Kind, distort
from edge_tsad.training.series import Segment
from edge_tsad.types import FloatArray, IndexArray, Timing
from export.subject import Subject

__all__ = ["EVENTS", "Matched", "Stream", "make_stream", "match", "onsets"]

EVENTS = 320
"""Injected anomalies in a stream."""

STRENGTH = (0.3, 8.0)
"""Spikes and shifts, in ranges of the stretch: some must reach any threshold, or equal alerts would
say nothing."""

SPIKE_SHARE = 8
"""A spike lasts one part in so many of an anomaly."""

BEGIN = 1 << 20
"""Grid index of a stream's first point."""


@dataclass(frozen=True, slots=True)
class Stream:
    """``times_ns`` i64[n] and ``values`` f32[n, C], NaN where missing.

    The points before ``injected_from`` are as they were; ``events`` anomalies are in the rest.
    """

    times_ns: IndexArray
    values: FloatArray
    injected_from: int
    events: int


@dataclass(frozen=True, slots=True)
class Matched:
    """How the alerts of a file go with those of the float model.

    ``events`` were injected; ``real`` of the ``expected`` alerts are of normal operation as it was;
    ``matched`` pairs have onsets within H + S points of each other.
    """

    events: int
    real: int
    expected: int
    found: int
    matched: int

    @property
    def f1(self) -> float:
        """F1 of the file's alerts, taking the float model's for true; 1 where neither alerts."""
        total = self.expected + self.found
        return 2 * self.matched / total if total else 1.0

    @property
    def changed(self) -> int:
        """Alerts that only one of the two gave."""
        return self.expected + self.found - 2 * self.matched


def _far(series: FloatArray, rng: np.random.Generator) -> float:
    """A signed distance of ``STRENGTH`` ranges, as likely to be doubled as to be halved."""
    ranges = float(np.exp(rng.uniform(*np.log(STRENGTH))))
    return float(rng.choice((-1, 1))) * ranges * float(np.ptp(series))


def _spike(series: FloatArray, start: int, span: int, rng: np.random.Generator) -> FloatArray:
    segment: FloatArray = series[start : start + span].copy()
    segment[: max(1, span // SPIKE_SHARE)] += np.float32(_far(series, rng))
    return segment


def _shift(series: FloatArray, start: int, span: int, rng: np.random.Generator) -> FloatArray:
    shifted: FloatArray = series[start : start + span] + np.float32(_far(series, rng))
    return shifted


INJECTED: dict[str, Kind] = {**KINDS, "spike": _spike, "shift": _shift}
"""The kinds that a classifier may have learnt from, and two that it has not."""


def make_stream(held_out: Segment, timing: Timing, seed: int, events: int = EVENTS) -> Stream:
    """``held_out`` as it is, then repeated with ``events`` injected anomalies.

    It is repeated in whole periods; what remains of a joint is one more event for both models.
    """
    rng = np.random.default_rng(seed)
    # An anomaly of a period, what a window smears of it, and a quiet period to resolve in.
    spacing = 2 * timing.period + timing.delay
    values = np.where(held_out.observed > 0, held_out.values, np.float32(np.nan))
    whole = max(len(values) // timing.period, 1) * timing.period
    turns = np.arange(events * spacing) % min(whole, len(values))
    # Simulated on the filled values: statistics of a window with NaN would all be NaN.
    filled, seen = held_out.values[turns], held_out.observed[turns]
    shape = (events, spacing, values.shape[1])
    injected = distort(filled.reshape(shape), timing.period, rng, INJECTED).values
    repeated = np.where(seen > 0, injected.reshape(filled.shape), np.float32(np.nan))
    both = np.concatenate([values, repeated])
    index = BEGIN + np.arange(len(both), dtype=np.int64)
    return Stream(index * timing.step_ns, both, len(values), events)


def onsets(backend: Backend, stream: Stream, subject: Subject, threshold: Threshold) -> IndexArray:
    """Positions in ``stream`` at which alerts began, as a gateway would have them."""
    timing, channels = subject.timing, subject.channels
    pipeline = StreamPipeline(
        Resampler(timing.step_ns, channels),
        StreamScorer(timing, len(channels), backend),
        AlertPolicy(threshold.value, threshold.median, subject.policy),
    )
    events = pipeline.extend(stream.times_ns, stream.values)[1] + pipeline.finish()[1]
    found = [event.onset - BEGIN for event in events if event.kind == "new"]
    return np.array(found, np.int64)


def match(stream: Stream, expected: IndexArray, found: IndexArray, slack: int) -> Matched:
    """Pair alerts one to one, the earliest first, where onsets differ by at most ``slack``."""
    matched, at = 0, 0
    for onset in expected:
        while at < len(found) and found[at] < onset - slack:
            at += 1
        if at < len(found) and found[at] <= onset + slack:
            matched, at = matched + 1, at + 1
    real = int((expected < stream.injected_from).sum())
    return Matched(stream.events, real, len(expected), len(found), matched)
