"""A running gateway and its update agent: candidates tried, switched slots followed, ends told.

The agent decides and the runtime follows. All that the runtime writes is its report on a candidate.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_tsad.config import GatewayConfig
from edge_tsad.errors import BundleError, EdgeTsadError
from edge_tsad.files import read_limited
from edge_tsad.runtime import payload
from edge_tsad.runtime.choices import Choices
from edge_tsad.runtime.notice import read_notice
from edge_tsad.runtime.opening import StreamOpener
from edge_tsad.runtime.shadow import Shadow
from edge_tsad.runtime.sinks.base import Sink
from edge_tsad.runtime.slot import Seen, look, trial_of
from edge_tsad.runtime.sources.base import Batch
from edge_tsad.runtime.state import Saved
from edge_tsad.runtime.stats import rss_mb
from edge_tsad.runtime.topics import Topics
from edge_tsad.runtime.trial_report import REPORT, REPORT_BYTES, TrialReport
from edge_tsad.runtime.worker import StreamWorker
from edge_tsad.types import Now

__all__ = ["Updates"]

log = logging.getLogger(__name__)

LOOK_S = 1.0
REPORT_S = 2.0


class Updates:
    """All slots of a gateway; everything is called by its thread."""

    def __init__(
        self,
        config: GatewayConfig,
        choices: Choices,
        workers: Sequence[StreamWorker],
        sink: Sink,
        topics: Topics,
    ) -> None:
        running = {worker.facts.stream: worker for worker in workers}
        by_slot: dict[Path, dict[str, StreamWorker]] = {}
        for stream in config.streams:
            if stream.name in running and look(Path(stream.bundle)) is not None:
                of_slot = by_slot.setdefault(Path(stream.bundle), {})
                of_slot[stream.name] = running[stream.name]
        self._slots = [
            SlotFollower(
                path,
                of_slot,
                config=config,
                choices=choices,
                sink=sink,
                topics=topics,
            )
            for path, of_slot in by_slot.items()
        ]
        self._look_at_s = 0.0

    @property
    def switched(self) -> bool:
        """Whether a slot holds another bundle than the one that runs."""
        return any(slot.switched for slot in self._slots)

    def tick(self, now: Now) -> None:
        """Look at the slots, once a second."""
        if now.monotonic_s >= self._look_at_s:
            self._look_at_s = now.monotonic_s + LOOK_S
            for slot in self._slots:
                slot.look(now)

    def take(self, stream: str, batch: Batch) -> None:
        """The samples that the ``stream`` of this name was given."""
        for slot in self._slots:
            slot.take(stream, batch)

    def handovers(self) -> dict[str, Saved]:
        """Where a candidate has become the active bundle: the states that it goes on from."""
        return {name: saved for slot in self._slots for name, saved in slot.handovers().items()}

    def close(self) -> None:
        """Leave no report of a trial that this run no longer sees."""
        for slot in self._slots:
            slot.close()


class SlotFollower:
    """One slot, the streams that run on it, and the candidate beside them, if there is one."""

    def __init__(
        self,
        path: Path,
        workers: dict[str, StreamWorker],
        *,
        config: GatewayConfig,
        choices: Choices,
        sink: Sink,
        topics: Topics,
    ) -> None:
        self.path, self.config, self.workers = path, config, workers
        self._choices = choices
        self._sink, self._topics = sink, topics
        self._report_path = path.parent / REPORT
        self.switched = False
        self._told = b""
        self._candidate: Seen | None = None
        self._shadows: dict[str, Shadow] = {}
        self._problem = ""
        self._since_s = self._report_at_s = 0.0
        self._memory_mb = 0.0

    @property
    def _running(self) -> str:
        return next(iter(self.workers.values())).facts.digest

    def look(self, now: Now) -> None:
        """Open a candidate that has come, let go one that has left, report, and tell what ended."""
        # In this order: a candidate leaves its slot only after it has become the active one.
        candidate, active = look(trial_of(self.path)), look(self.path)
        self.switched = active is not None and active.digest != self._running
        if self.switched:
            return
        if candidate != self._candidate:
            if self._candidate is not None or candidate is None:
                self.close()
            if candidate is not None and candidate.digest != self._running:
                self._open(candidate, now)
        for shadow in list(self._shadows.values()):
            self._attempt(shadow.advance, now)
        if self._candidate is not None and now.monotonic_s >= self._report_at_s:
            self._report_at_s = now.monotonic_s + REPORT_S
            self._report(now)
        self._tell()

    def take(self, stream: str, batch: Batch) -> None:
        """Samples of a stream; those of other slots' streams are left out."""
        if (shadow := self._shadows.get(stream)) is not None:
            self._attempt(shadow.take, batch)

    def handovers(self) -> dict[str, Saved]:
        """The states of the candidate, if it is what the slot holds now."""
        seen = look(self.path)
        return {
            name: shadow.handover()
            for name, shadow in self._shadows.items()
            if seen is not None and seen.digest == shadow.stream.facts.digest and shadow.points
        }

    def close(self) -> None:
        """Let the candidate go, and the report on it with it."""
        self._candidate, self._shadows, self._problem = None, {}, ""
        with contextlib.suppress(OSError):
            self._report_path.unlink(missing_ok=True)

    def _open(self, candidate: Seen, now: Now) -> None:
        self._candidate, self._since_s, self._report_at_s = candidate, now.monotonic_s, 0.0
        self._memory_mb = rss_mb()
        self._problem = self._crashed(candidate, now)
        if self._problem:
            return
        trial = str(trial_of(self.path))
        streams = tuple(
            dataclasses.replace(stream, bundle=trial) if stream.name in self.workers else stream
            for stream in self.config.streams
        )
        opener = StreamOpener(dataclasses.replace(self.config, streams=streams), self._choices)
        try:
            for stream in streams:
                if (worker := self.workers.get(stream.name)) is not None:
                    self._shadows[stream.name] = Shadow(opener.open(stream), worker)
        except EdgeTsadError as e:
            self._fail(e)
        else:
            self._choices.save()  # the next run must serve the very file that was tried
            log.info("%s: a candidate is scored beside the active bundle", self.path)

    def _crashed(self, candidate: Seen, now: Now) -> str:
        """Whether an earlier process ended, unasked, while it tried this candidate."""
        with contextlib.suppress(BundleError):
            before = TrialReport.read(read_limited(self._report_path, REPORT_BYTES, BundleError))
            same = (before.candidate, before.boot_id) == (candidate.digest, now.boot_id)
            if same and before.process != os.getpid():
                return "the runtime crashed or was killed while it ran beside the active bundle"
        return ""

    def _attempt(self, step: Callable[..., None], *arguments: object) -> None:
        """A step of the candidate, whose failure ends its trial and nothing else."""
        try:
            step(*arguments)
        except EdgeTsadError as e:
            self._fail(e)

    def _fail(self, error: EdgeTsadError) -> None:
        self._shadows.clear()
        self._problem = f"it could not be run beside the active bundle: {error}"
        self._report_at_s = 0.0
        log.warning("%s: the candidate failed: %s", self.path, error)

    def _report(self, now: Now) -> None:
        assert self._candidate is not None
        report = TrialReport(
            candidate=self._candidate.digest,
            boot_id=now.boot_id,
            process=os.getpid(),
            since_s=self._since_s,
            at_s=now.monotonic_s,
            memory_mb=round(rss_mb() - self._memory_mb, 3),
            problem=self._problem,
            streams=tuple(shadow.report() for shadow in self._shadows.values()),
        )
        part = self._report_path.with_name(f".{self._report_path.name}")
        try:
            part.write_bytes(report.pack())
            part.chmod(0o644)  # whatever the umask: the agent is another user
            part.replace(self._report_path)
        except OSError as e:
            log.warning("%s: the report on the candidate could not be written: %s", part, e)

    def _tell(self) -> None:
        """What the agent noted last, to whoever listens, once."""
        notice = read_notice(self.path.parent)
        if notice is None:
            return
        facts = next(iter(self.workers.values())).facts
        message = payload.pack({**notice, "active": facts.bundle, "active_digest": facts.digest})
        if message != self._told:
            self._told = message
            for worker in self.workers.values():
                self._sink.retain(self._topics.update(worker.facts.stream), message)
