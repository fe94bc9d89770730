"""One stream on the gateway: from its samples to committed alerts, through restarts."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_tsad.errors import ConfigError
from edge_tsad.runtime import report
from edge_tsad.runtime.alerting import AlertEvent
from edge_tsad.runtime.announcing import Announcer
from edge_tsad.runtime.continuing import NEVER, POLICY, Continuation
from edge_tsad.runtime.evidence import EvidenceKeeper
from edge_tsad.runtime.health_alerts import HealthReporter
from edge_tsad.runtime.history import History
from edge_tsad.runtime.keeper import Keeper
from edge_tsad.runtime.limits import AlertLimits
from edge_tsad.runtime.opening import OpenStream
from edge_tsad.runtime.outbox import Outbox
from edge_tsad.runtime.payload import StreamFacts
from edge_tsad.runtime.sources.base import Batch
from edge_tsad.runtime.standing import Standing
from edge_tsad.runtime.state import Saved, save, without_prefix
from edge_tsad.runtime.stream import StreamPipeline
from edge_tsad.runtime.telling import Teller
from edge_tsad.types import NANOSECONDS, Cells, Now, Scores

__all__ = ["StreamWorker"]

log = logging.getLogger(__name__)

HEALTH = "health."
WITHHELD = "ALERTS_WITHHELD"
SET_BACK_S = 60.0
SET_BACK_STEPS = 10
OUTBOX_FAILED = "OUTBOX_FAILED"


class StreamWorker:
    """Runs one stream; everything is called by the gateway's thread.

    After a restart, the scorer's state comes from the last snapshot and the alert's from the
    outbox, if the first sample continues either. A scorer without its state warms up; an alert that
    was open keeps its id, or is ended where time has gone backwards. A live clock that is set back
    by more than a minute and ten steps begins the stream anew. ``history`` is where its cells are
    recorded.

    While the stream is silenced it scores and counts as ever, but its alerts are not sent; one that
    was sent before still gets its end, and one that outlasts the silence is sent then.
    """

    def __init__(
        self,
        stream: OpenStream,
        outbox: Outbox,
        snapshot_path: Path,
        history: History | None = None,
    ) -> None:
        self.standing = Standing(stream.facts.stream, outbox)
        self.configured = stream
        self.stream = stream
        self._tune(self.standing.sensitivity)
        self.keeper = None if history is None else Keeper(stream, history)
        self.reporter = HealthReporter(stream, outbox)
        self.evidence = EvidenceKeeper(
            snapshot_path.with_suffix(".alerts"),
            self.facts,
            stream.path,
            stream.backend.name,
            stream.policy.update_every,
        )
        self.pipeline = self._new_pipeline()
        self.samples = 0
        self.points = 0
        self.limits = AlertLimits(stream.limits, self.facts.timing.step_ns / NANOSECONDS)
        self.over = 0
        self.latest: Scores | None = None
        self.highest = float("nan")
        self.health: set[str] = set()
        self.finished = False
        self._path = snapshot_path
        self._judged = NEVER
        self._begun = False
        self._continuation = Continuation(stream, snapshot_path, outbox)
        if self._continuation.snapshot is not None:
            learned = without_prefix(self._continuation.snapshot.arrays, HEALTH)
            self.reporter.restore(learned)
        self.announcer = Announcer(self.facts.stream, outbox, self._continuation.facts)
        self._teller = Teller(self.announcer, self.evidence, lambda: self.facts)

    @property
    def facts(self) -> StreamFacts:
        """What all messages about the stream say."""
        return self.stream.facts

    @property
    def alert_id(self) -> str:
        """The identity of the open alert; empty where none is open."""
        return self.announcer.id

    def take(self, batch: Batch, now: Now) -> None:
        """Score samples and commit what follows from them.

        Raises:
            BackendError: the model could not be run.
        """
        if not len(batch):
            return
        if self.keeper is not None:
            self.keeper.now = now
        self.reporter.take(batch, now)
        if not self._begun:
            self._begin(int(batch.times_ns.min()))
        self.samples += len(batch)
        self._note(*self.pipeline.extend(batch.times_ns, batch.values), now)

    def advance(self, now: Now) -> None:
        """Let time pass without samples, and try again to commit what could not be."""
        self.standing.advance(now)
        if not self.finished:
            self.reporter.advance(now)
            self._follow_clock()
        if self.keeper is not None:
            self.keeper.tick(now)
        if self._begun and self.stream.source.live and not self.finished:
            self._note(*self.pipeline.advance(now), now)
        else:
            self.retry(now)

    def retry(self, now: Now) -> None:
        """Try again to commit what could not be."""
        if not self.silenced:
            self.announcer.tell()
        self.announcer.commit(self._alert_state, now)
        self.reporter.retry(now)

    def acknowledge(self, now: Now) -> bool:
        """Mark the open alert as seen by a person; False if there is none that is not yet."""
        event = self.pipeline.policy.acknowledge() if self._begun else None
        if event is not None and self.alert_id:  # else it is withheld
            self._teller.tell([event], silenced=self.silenced)
            self.announcer.commit(self._alert_state, now)
        return event is not None

    def silence(self, for_s: float, now: Now) -> None:
        """Send no alerts for so many seconds; 0 ends a silence.

        Raises:
            sqlite3.Error: it could not be stored; nothing has changed.
        """
        self.standing.set_silence(for_s, now)
        self.announcer.suppressed.clear()
        self.retry(now)

    def retune(self, sensitivity: float | None, now: Now) -> None:
        """Judge from now on by another sensitivity; None: that of the configuration.

        Raises:
            sqlite3.Error: it could not be stored; nothing has changed.
            ConfigError: it is out of bounds; nothing has changed.
        """
        self.configured.tuned(sensitivity or self.configured.sensitivity)
        self.standing.set_sensitivity(sensitivity, now)
        self._tune(sensitivity)
        self.pipeline.policy.retune(self.facts.threshold.value)

    @property
    def silenced(self) -> bool:
        """Whether people want no alerts of the stream for now."""
        return self.standing.silence is not None

    @property
    def uncommitted(self) -> int:
        """How many alerts are not in the outbox yet."""
        return self.announcer.uncommitted + self.reporter.uncommitted

    def finish(self, now: Now) -> None:
        """The source has ended: close the last cell."""
        if self._begun:
            self._note(*self.pipeline.finish(), now)
        self.finished = True
        self.health.add("SOURCE_ENDED")

    def rebudget(self, stream: OpenStream) -> None:
        """Judge from now on by the budget of ``stream``; all else of it is the same."""
        self.configured = dataclasses.replace(
            self.configured, facts=stream.facts, budget=stream.budget
        )
        self._tune(self.standing.sensitivity)
        self.reporter.facts = self.facts
        self.pipeline.policy.retune(self.facts.threshold.value)

    def abandon(self, now: Now) -> None:
        """The stream does not come back: end the alert that is open."""
        self._teller.end_lost(silenced=self.silenced)
        self.retry(now)

    def close(self, now: Now) -> None:
        """Store what is left of the recording."""
        if self.keeper is not None:
            self.keeper.close(now)

    def snapshot(self) -> int:
        """Write the stream's state; returns its bytes, 0 before the first sample.

        Nothing is written while an alert is uncommitted: after a crash it must be raised anew.

        Raises:
            EdgeTsadError: it cannot be written; the snapshot before it stays.
        """
        if not self._begun or self.announcer.uncommitted:
            return 0
        latest_ns = self.pipeline.resampler.latest_ns
        warm = not self.pipeline.scorer.warmup_remaining
        facts = {**self._identity(), **self.announcer.facts(), "latest_ns": latest_ns, "warm": warm}
        return save(self._path, Saved(facts, {**self.pipeline.snapshot(), **self.learned()}))

    def learned(self) -> dict[str, npt.NDArray[Any]]:
        """What a snapshot keeps of the data's health, whichever bundle goes on."""
        return {HEALTH + name: array for name, array in self.reporter.snapshot().items()}

    def hand_over(self, saved: Saved) -> None:
        """Let the next run begin with ``saved``, the state of the bundle that follows this one.

        Raises:
            EdgeTsadError: it cannot be written; the snapshot before it stays.
        """
        if not self.announcer.uncommitted:
            save(self._path, saved)

    @property
    def process(self) -> str:
        """WARMING_UP, OK, PENDING, FIRING or ACKED."""
        if self.alert_id and not self._begun:
            return "FIRING"
        state = self.pipeline.policy.state.value
        busy = {"pending": "PENDING", "firing": "FIRING", "acknowledged": "ACKED"}
        if state in busy:
            return busy[state]
        return "WARMING_UP" if self.warmup_remaining else "OK"

    @property
    def warmup_remaining(self) -> int:
        """Points until there are scores, as the saved state has it before the first sample."""
        if self._continuation.warm and not self._begun:
            return 0
        return self.pipeline.scorer.warmup_remaining

    def all_health(self) -> set[str]:
        """Words for all that is wrong with the stream's data or its keeping."""
        health = self.health | self.reporter.words | self.stream.source.complaints.active
        health |= self.keeper.words if self.keeper else set()
        health |= {WITHHELD} if self.limits.storm else set()
        if self.announcer.failing:
            health.add(OUTBOX_FAILED)
        if self.pipeline.policy.data_lost:
            health.add("DATA_LOST")
        if self.pipeline.resampler.late:
            health.add("LATE")
        return health

    def describe(self) -> dict[str, Any]:
        """The message for ``state/<stream>``."""
        return report.describe(self)

    def score_message(self) -> dict[str, Any] | None:
        """The message for ``score/<stream>``: the newest score and the highest since the last."""
        message = report.score(self)
        self.latest, self.highest = None, float("nan")
        return message

    def stats(self) -> dict[str, Any]:
        """What the stream has done and what its model cost (shared by the streams of a bundle)."""
        return report.stats(self)

    def _note(self, scores: Scores, events: list[AlertEvent], now: Now) -> None:
        if len(scores):
            self.points += len(scores)
            self.over += int((scores.score >= self.facts.threshold.value).sum())
            self.reporter.scored(scores)
            self._judged = int(scores.index[-1])
            self.latest = scores
            if not np.isnan(scores.score).all():
                self.highest = float(np.fmax(self.highest, np.nanmax(scores.score)))
        if not self.silenced:
            self.announcer.tell()
        told = [*self.limits.take(events)]
        told += self.limits.advance(int(scores.index[-1])) if len(scores) else ()
        self._teller.tell(told, silenced=self.silenced)
        self.announcer.commit(self._alert_state, now)

    def _alert_state(self) -> bytes:
        facts = {**self._identity(), **self.announcer.facts()}
        arrays = self.pipeline.policy.snapshot()
        return Saved(facts, {POLICY + name: array for name, array in arrays.items()}).to_bytes()

    def _identity(self) -> dict[str, Any]:
        """What a saved state must agree with, and how far it had come."""
        return {
            "digest": self.facts.digest,
            "model": self.stream.path,
            "judged": self._judged,
            "limits": self.limits.snapshot(),
        }

    def _begin(self, first_ns: int) -> None:
        """Decide, by the time of the first sample, which saved state it continues."""
        self._begun = True
        self.pipeline, self._judged = self._continuation.resume(
            first_ns, self.limits, self._new_pipeline
        )
        if self.pipeline.policy.onset is None:
            self._teller.end_lost(silenced=self.silenced)

    def _follow_clock(self) -> None:
        """A live clock that was set back far: begin anew, or all samples would long be late."""
        back_s = self.reporter.health.clock.jumped_back_s
        step_s = self.facts.timing.step_ns / NANOSECONDS
        if self._begun and back_s > max(SET_BACK_S, SET_BACK_STEPS * step_s):
            log.warning("%s: begins anew, the clock was set back %.0f s", self.facts.stream, back_s)
            self.pipeline = self._new_pipeline()
            self._judged = NEVER
            self._teller.end_lost(silenced=self.silenced)

    def _tune(self, sensitivity: float | None) -> None:
        """Take over a sensitivity; one that is out of bounds by now is left, and said."""
        try:
            self.stream = (
                self.configured if sensitivity is None else self.configured.tuned(sensitivity)
            )
        except ConfigError as e:
            log.warning("%s: what a command has set is not used: %s", self.facts.stream, e)

    def _new_pipeline(self) -> StreamPipeline:
        pipeline = self.stream.pipeline()
        pipeline.tap = self._see
        return pipeline

    def _see(self, cells: Cells) -> None:
        """Every closed cell, before it is scored."""
        self.evidence.add(cells)
        if self.keeper is not None:
            self.keeper.add(cells)
