"""A candidate that scores a stream beside the active bundle: its alerts are counted, not sent."""

from __future__ import annotations

import numpy as np

from edge_tsad.errors import BundleError
from edge_tsad.runtime.alerting import AlertEvent
from edge_tsad.runtime.opening import OpenStream
from edge_tsad.runtime.sources.base import Batch
from edge_tsad.runtime.state import Saved
from edge_tsad.runtime.trial_report import StreamTrial
from edge_tsad.runtime.worker import StreamWorker
from edge_tsad.types import NANOSECONDS, Cells, Now, Scores

__all__ = ["Shadow"]


class Shadow:
    """The candidate ``stream`` beside ``worker``; it is given what the worker is given.

    It judges by the sensitivity that holds for the worker, also where a command has set it.
    Where both have one grid it begins with the points that the worker's scorer still holds, and
    need not warm up.

    Raises:
        BundleError: the candidate has other channels.
    """

    def __init__(self, stream: OpenStream, worker: StreamWorker) -> None:
        self._configured, self.worker = stream, worker
        self._sensitivity = worker.standing.sensitivity
        self.stream = stream if self._sensitivity is None else stream.tuned(self._sensitivity)
        mine = [channel.name for channel in stream.facts.channels]
        theirs = [channel.name for channel in worker.facts.channels]
        if mine != theirs:
            raise BundleError(f"its channels are {', '.join(mine)}, not {', '.join(theirs)}")
        self.pipeline = self.stream.pipeline()
        self.points = self.alarms = self.over = 0
        self._judged = -(2**63)
        self._alarms_before, self._over_before = worker.announcer.counts["new"], worker.over
        self._windows_before = stream.backend.latency.count
        if stream.facts.timing.step_ns == worker.facts.timing.step_ns:
            self.pipeline.scorer.extend(held(worker))

    def take(self, batch: Batch) -> None:
        """Score samples.

        Raises:
            EdgeTsadError: the candidate could not be run.
        """
        self._follow()
        if len(batch):
            self._note(*self.pipeline.extend(batch.times_ns, batch.values))

    def advance(self, now: Now) -> None:
        """Let time pass without samples.

        Raises:
            EdgeTsadError: the candidate could not be run.
        """
        if self.worker.stream.source.live and not self.worker.finished and self.worker.samples:
            self._note(*self.pipeline.advance(now))

    def report(self) -> StreamTrial:
        """What was seen so far."""
        timing, latency = self.stream.facts.timing, self.stream.backend.latency
        between_ns = timing.hop * timing.step_ns if timing.has_rate else 0
        return StreamTrial(
            stream=self.stream.facts.stream,
            points=self.points,
            alarms=self.alarms,
            active_alarms=self.worker.announcer.counts["new"] - self._alarms_before,
            over=self.over,
            active_over=self.worker.over - self._over_before,
            expected=float(self.stream.facts.threshold.rate * self.points),
            windows=latency.count - self._windows_before,
            p99_ms=milliseconds(latency.quantile_s(0.99)),
            active_p99_ms=milliseconds(self.worker.stream.backend.latency.quantile_s(0.99)),
            between_ms=between_ns / NANOSECONDS * 1e3,
        )

    def handover(self) -> Saved:
        """What the next run begins with if the candidate is the active bundle then.

        Its policy begins anew: an alert that was only counted has no beginning to follow.
        """
        policy = {f"policy.{k}": v for k, v in self.stream.pipeline().policy.snapshot().items()}
        facts = {
            "digest": self.stream.facts.digest,
            "model": self.stream.path,
            "alert_id": "",
            "judged": self._judged,
            "latest_ns": self.pipeline.resampler.latest_ns,
            "warm": not self.pipeline.scorer.warmup_remaining,
            "last_message": {},
        }
        return Saved(facts, {**self.pipeline.snapshot(), **policy, **self.worker.learned()})

    def _follow(self) -> None:
        """Judge by the sensitivity that people have set since."""
        wanted = self.worker.standing.sensitivity
        if wanted != self._sensitivity:
            self._sensitivity = wanted
            self.stream = self._configured if wanted is None else self._configured.tuned(wanted)
            self.pipeline.policy.retune(self.stream.facts.threshold.value)

    def _note(self, scores: Scores, events: list[AlertEvent]) -> None:
        self.alarms += sum(event.kind == "new" for event in events)
        self.points += int(np.isfinite(scores.score).sum())
        self.over += int((scores.score >= self.stream.facts.threshold.value).sum())
        if len(scores):
            self._judged = int(scores.index[-1])


def held(worker: StreamWorker) -> Cells:
    """The points that the worker's scorer holds."""
    saved = worker.pipeline.scorer.snapshot()
    values, observed = saved["values"], saved["observed"]
    end = int(saved["position"][1])
    index = np.arange(end - len(values), end, dtype=np.int64)
    there = observed.any(axis=1)
    return Cells(index[there], values[there], observed[there])


def milliseconds(duration_s: float | None) -> float:
    """The duration in milliseconds; 0 where there is none."""
    return 0.0 if duration_s is None else round(duration_s * 1e3, 4)
