"""The gate at the level of alerts: a file must alert when the float model does, and not otherwise.

A stream of normal operation with anomalies in it (``injection``) goes through Resampler,
StreamScorer, Threshold and AlertPolicy, once with the float model and once with the file, each with
the threshold of its own scores. Alerts are matched one to one by their onsets.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from edge_tsad.errors import DataError
from edge_tsad.runtime.alerting import AlertEvent, AlertPolicy
from edge_tsad.runtime.backends.base import Backend
from edge_tsad.runtime.resampler import Resampler
from edge_tsad.runtime.scorer import StreamScorer
from edge_tsad.runtime.stream import StreamPipeline
from edge_tsad.runtime.threshold import Threshold
from edge_tsad.types import FloatArray, IndexArray
from export.injection import EVENTS, Injector
from export.repeats import Repeats
from export.subject import Subject
from export.windows import Windows

__all__ = ["LEAST_ALERTS", "LEAST_COMPARED", "Matched", "Stream", "compose", "match", "onsets"]

LEAST_ALERTS = 300
"""A stream goes on for so many alerts of the float model, and for as many injected anomalies …"""

LEAST_COMPARED = 30
"""Alerts of the float model below which no file can be compared with it."""

MOST_ROUNDS = 12
"""… but no longer than so many rounds of these."""

MOST_ALARMING = 0.3
"""Share of the scores of normal operation that may be above the threshold. A budget allows a
thousandth, but an export shall not fail because the end of a history went astray for a while."""

ENOUGH = 0.75
"""Share of a round's anomalies that must alarm, or the next round is stronger …"""

STRONGER = 3.0
"""… by this factor."""

BEGIN = 1 << 20
"""Grid index of a stream's first point."""


@dataclass(frozen=True, slots=True)
class Stream:
    """``values`` f32[n, C], NaN where missing, on consecutive points of the grid.

    The points before ``injected_from`` are as they were; ``events`` anomalies are in the rest.
    """

    values: FloatArray
    injected_from: int
    events: int

    def windows(self, points: int, count: int) -> Windows:
        """At most ``count`` windows of so many points, evenly spread over what was injected.

        A missing value is the one before it, as the runtime hands it over.
        """
        seen = np.isfinite(self.values)
        rows = np.arange(len(seen))[:, None]
        last = np.maximum.accumulate(np.where(seen, rows, 0), axis=0)
        filled = np.nan_to_num(np.take_along_axis(self.values, last, axis=0))
        first = min(self.injected_from, len(seen) - points)
        begins = np.unique(np.linspace(first, len(seen) - points, count).astype(int))
        within = begins[:, None] + np.arange(points)
        return Windows(filled[within], seen[within].astype(np.float32))


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


class Alarms:
    """A backend behind a gateway's pipeline; says at which positions of a stream alerts began.

    ``scored`` counts the scores so far, and ``above`` those of them above the threshold.
    """

    def __init__(self, backend: Backend, subject: Subject, threshold: Threshold) -> None:
        timing, channels = subject.timing, subject.channels
        self._step_ns, self._next, self._threshold = timing.step_ns, BEGIN, threshold.value
        self.scored, self.above = 0, 0
        self._pipeline = StreamPipeline(
            Resampler(timing.step_ns, channels),
            StreamScorer(timing, len(channels), Repeats(backend)),
            AlertPolicy(threshold.value, threshold.median, subject.policy),
        )

    def extend(self, values: FloatArray) -> list[int]:
        """Take in the next points f32[n, C]."""
        index = np.arange(self._next, self._next + len(values), dtype=np.int64)
        self._next += len(values)
        scores, events = self._pipeline.extend(index * self._step_ns, values)
        self.scored += int(np.isfinite(scores.score).sum())
        self.above += int((scores.score > self._threshold).sum())
        return _begun(events)

    def finish(self) -> list[int]:
        """What the newest point still brings."""
        return _begun(self._pipeline.finish()[1])


def _begun(events: list[AlertEvent]) -> list[int]:
    return [event.onset - BEGIN for event in events if event.kind == "new"]


def compose(subject: Subject, threshold: Threshold, seed: int) -> tuple[Stream, IndexArray]:
    """A stream on which the float model alerts ``LEAST_ALERTS`` times, and its alerts' onsets.

    ``subject.held_out`` as it is, then rounds of anomalies in it: of all kinds as long as most of
    them alarm, stronger and stronger ones where a threshold is hard to reach.

    Raises:
        DataError: what is held out is no normal operation to the float model.
    """
    held_out = subject.held_out
    values = np.where(held_out.observed > 0, held_out.values, np.float32(np.nan))
    alarms = Alarms(subject.backend, subject, threshold)
    injector = Injector(held_out, subject.timing, subject.policy, seed)
    parts, found, severity = [values], alarms.extend(values), 1.0
    if alarms.above > MOST_ALARMING * alarms.scored:
        raise DataError(
            f"{subject.name}: {alarms.above:,} of {alarms.scored:,} scores of the data that files"
            " are tried on are above the model's threshold, so to the model they are no normal"
            " operation; calibrate with other data, or train again with data like these"
        )

    def wanted(_: object = None) -> bool:
        return len(found) < LEAST_ALERTS or len(parts) <= LEAST_ALERTS

    while wanted() and len(parts) <= MOST_ROUNDS * EVENTS:
        before = len(found)
        # Not always the whole round: what is in the stream costs each file its windows.
        for stretch in itertools.takewhile(wanted, injector.round(severity)):
            parts.append(stretch)
            found += alarms.extend(stretch)
        if len(found) - before < ENOUGH * EVENTS:
            severity *= STRONGER
    found += alarms.finish()
    stream = Stream(np.concatenate(parts), len(values), len(parts) - 1)
    return stream, np.array(found, np.int64)


def onsets(backend: Backend, stream: Stream, subject: Subject, threshold: Threshold) -> IndexArray:
    """Positions in ``stream`` at which alerts began, as a gateway would have them."""
    alarms = Alarms(backend, subject, threshold)
    return np.array(alarms.extend(stream.values) + alarms.finish(), np.int64)


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
