"""From scores to alerts: pending → firing → acknowledged → resolved, with the evidence.

The rules are those of :mod:`edge_tsad.runtime.openings`; this adds what an operator wants to see.
No clock and no I/O: the alert's identity is its stream and its ``onset``, which never repeats.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
import numpy.typing as npt

from edge_tsad.errors import DataError
from edge_tsad.runtime.openings import NEVER, Machine, MachineState, Span, count_openings, openings
from edge_tsad.types import FloatArray, PolicySettings, Scores

__all__ = ["AlertEvent", "AlertPolicy", "AlertState", "count_openings", "openings"]

State = dict[str, npt.NDArray[np.generic]]
ROWS = ("channel_score", "expected", "values", "observed", "details")


class AlertState(StrEnum):
    """Where a stream's alert stands; RESOLVED lasts through the cool-down."""

    IDLE = "idle"
    PENDING = "pending"
    FIRING = "firing"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class AlertEvent:
    """One step in the life of an alert.

    ``onset`` is the index at which the row that opened the alert began, the same in all its events;
    ``index`` is the point of this event and ``score`` the score there (NaN where withheld).
    ``peak`` is the highest score so far, first reached at ``peak_index``; ``channel_share``,
    ``expected`` (None for a detector without), ``values`` and ``observed`` are the rows f32[C]
    there, ``details`` f32[d] those of a detector that has any. ``channel_share`` sums to 1, or is
    all 0 where no channel has a part. ``observed_fraction`` counts measured cells from onset to
    ``index`` over all channels, in 0…1; ``threshold`` is the one in force.
    """

    kind: Literal["new", "update", "end"]
    onset: int
    index: int
    score: float
    peak: float
    peak_index: int
    channel_share: FloatArray
    expected: FloatArray | None
    values: FloatArray
    observed: FloatArray
    observed_fraction: float
    threshold: float
    acknowledged: bool
    details: FloatArray | None = None

    @property
    def data_lost(self) -> bool:
        """Whether the point of this event has no score."""
        return math.isnan(self.score)


@dataclass(slots=True)
class _Evidence:
    """What has been seen since an onset."""

    onset: int
    peak: float = -math.inf
    peak_index: int = NEVER
    cells: float = 0.0
    score: float = math.nan
    index: int = NEVER
    rows: dict[str, FloatArray] | None = None

    def add(self, scores: Scores, begin: int, stop: int) -> None:
        """Take in the points ``begin``…``stop − 1`` of a chunk."""
        if stop <= begin:
            return
        self.cells += float(scores.observed[begin:stop].sum(dtype=np.float64))
        self.index, self.score = int(scores.index[stop - 1]), float(scores.score[stop - 1])
        known = np.where(np.isnan(scores.score[begin:stop]), -np.inf, scores.score[begin:stop])
        best = int(np.argmax(known))
        if known[best] > self.peak:
            self.peak, self.peak_index = float(known[best]), int(scores.index[begin + best])
            self.rows = {
                name: getattr(scores, name)[begin + best].copy()
                for name in ROWS
                if getattr(scores, name) is not None
            }

    def share(self) -> FloatArray:
        """Parts of the channels at the peak."""
        assert self.rows is not None
        part = np.maximum(self.rows["channel_score"].astype(np.float64), 0)
        total = part.sum()
        share = part / total if 0 < total < np.inf else np.zeros_like(part)
        return share.astype(np.float32)


class AlertPolicy:
    """Turns scores into alert events; any chunking of the scores gives the same events.

    Args:
        threshold: score at which an alert may open; finite.
        median: median of the calibration scores, from which hysteresis is measured; finite.
        settings: spans and hysteresis.

    Raises:
        ConfigError: if ``threshold`` or ``median`` is not finite.
    """

    def __init__(self, threshold: float, median: float, settings: PolicySettings) -> None:
        self._machine = Machine(threshold, median, settings)
        self._evidence: _Evidence | None = None
        self._acknowledged = False
        self._reported = NEVER
        self._withheld = False

    @property
    def threshold(self) -> float:
        """The threshold in force."""
        return self._machine.threshold

    @property
    def state(self) -> AlertState:
        """Where the alert stands after the newest point."""
        state = self._machine.state
        if state.open:
            return AlertState.ACKNOWLEDGED if self._acknowledged else AlertState.FIRING
        if state.row:
            return AlertState.PENDING
        cooling = NEVER < state.closed >= state.last - self._machine.settings.cooldown
        return AlertState.RESOLVED if cooling else AlertState.IDLE

    @property
    def onset(self) -> int | None:
        """Onset of the open alert, None where none is open."""
        return self._machine.state.onset if self._machine.state.open else None

    @property
    def data_lost(self) -> bool:
        """Whether an alert is open and the newest point has no score: it stays open."""
        return self._machine.state.open and self._withheld

    def retune(self, threshold: float) -> None:
        """Judge the points from now on by ``threshold``; an open alert stays open.

        Raises:
            ConfigError: if it is not finite.
        """
        self._machine.retune(threshold)

    def acknowledge(self) -> AlertEvent | None:
        """Mark the open alert as seen by a person; returns an update, None if there was nothing."""
        if not self._machine.state.open or self._acknowledged:
            return None
        self._acknowledged = True
        return self._event("update")

    def extend(self, scores: Scores) -> list[AlertEvent]:
        """Take in scored points, in order, and return what happened, in order.

        Raises:
            DataError: if the points do not lie after all points before; nothing is taken in.
        """
        if not len(scores):
            return []
        before = self._machine.state
        if int(scores.index[0]) <= before.last:
            raise DataError(
                f"scores: index {int(scores.index[0])} comes after index {before.last}; "
                "points must arrive in order"
            )
        events: list[AlertEvent] = []
        for span in self._machine.extend(scores.index, scores.score):
            events.extend(self._follow(scores, span))
        self._keep_pending(scores)
        self._withheld = bool(np.isnan(scores.score[-1]))
        return events

    def _follow(self, scores: Scores, span: Span) -> Iterator[AlertEvent]:
        """The events of one alert within the chunk."""
        position, stop = 0, len(scores) if span.closed is None else span.closed
        if self._evidence is None or self._evidence.onset != span.onset:
            self._evidence = _Evidence(span.onset)
            position = int(np.searchsorted(scores.index, span.onset))
        evidence = self._evidence
        if span.opened is not None:
            evidence.add(scores, position, span.opened + 1)
            position = span.opened + 1
            yield self._event("new")
        while (due := self._due(scores)) < stop:
            evidence.add(scores, position, due + 1)
            position = due + 1
            yield self._event("update")
        if span.closed is None:
            evidence.add(scores, position, stop)
            return
        evidence.add(scores, position, stop + 1)
        yield self._event("end")
        self._evidence, self._acknowledged = None, False

    def _due(self, scores: Scores) -> int:
        """Position of the point at which the next update is due, n if none is."""
        after = self._reported + self._machine.settings.update_every
        return int(np.searchsorted(scores.index, after))

    def _keep_pending(self, scores: Scores) -> None:
        """Evidence of a row that may yet open an alert starts where the row starts."""
        state = self._machine.state
        if state.open:
            return
        if not state.row:
            self._evidence = None
            return
        if self._evidence is None or self._evidence.onset != state.onset:
            self._evidence = _Evidence(state.onset)
        self._evidence.add(scores, max(0, len(scores) - state.row), len(scores))

    def _event(self, kind: Literal["new", "update", "end"]) -> AlertEvent:
        evidence = self._evidence
        assert evidence is not None and evidence.rows is not None
        rows = evidence.rows
        self._reported = max(self._reported, evidence.index)
        points = evidence.index - evidence.onset + 1
        return AlertEvent(
            kind=kind,
            onset=evidence.onset,
            index=evidence.index,
            score=evidence.score,
            peak=evidence.peak,
            peak_index=evidence.peak_index,
            channel_share=evidence.share(),
            expected=rows.get("expected"),
            values=rows["values"],
            observed=rows["observed"],
            observed_fraction=evidence.cells / (points * len(rows["observed"])),
            threshold=self.threshold,
            acknowledged=self._acknowledged,
            details=rows.get("details"),
        )

    def snapshot(self) -> State:
        """All that is needed to go on after a restart, as arrays; the threshold is not in it."""
        state, evidence = self._machine.state, self._evidence or _Evidence(NEVER)
        numbers = [state.open, state.row, state.onset, state.quiet, state.closed, state.last]
        numbers += [self._acknowledged, self._reported, self._withheld]
        seen = [evidence.onset, evidence.peak_index, evidence.index]
        arrays: State = {
            "numbers": np.array(numbers, np.int64),
            "seen": np.array(seen, np.int64),
            "measures": np.array([evidence.peak, evidence.cells, evidence.score], np.float64),
        }
        return arrays | dict(evidence.rows or {})

    def restore(self, state: State) -> None:
        """Go on from a :meth:`snapshot`.

        Raises:
            DataError: if it is not one; nothing is changed.
        """
        try:
            numbers = [int(number) for number in state["numbers"]]
            is_open, row, onset, quiet, closed, last, acknowledged, reported, withheld = numbers
            since, peak_index, newest = (int(number) for number in state["seen"])
            peak, cells, score = (float(number) for number in state["measures"])
            machine = MachineState(bool(is_open), row, onset, quiet, closed, last)
            rows = {name: np.asarray(state[name], np.float32) for name in ROWS if name in state}
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"alert state: is not a snapshot ({error}); start without it"
            ) from error
        if (is_open or row) and not {"channel_score", "values", "observed"} <= rows.keys():
            raise DataError("alert state: an open alert has no evidence; start without it")
        self._machine.state = machine
        self._acknowledged, self._reported = bool(acknowledged), reported
        self._withheld = bool(withheld)
        kept = _Evidence(since, peak, peak_index, cells, score, newest, rows or None)
        self._evidence = None if since == NEVER else kept
