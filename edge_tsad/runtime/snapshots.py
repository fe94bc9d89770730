"""The saved state of all streams: as often as storage and budget allow."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from edge_tsad.config import StateConfig
from edge_tsad.errors import EdgeTsadError
from edge_tsad.runtime.stats import Writes
from edge_tsad.runtime.worker import StreamWorker
from edge_tsad.types import Now

__all__ = ["STATE_FAILED", "Snapshots"]

log = logging.getLogger(__name__)

STATE_FAILED = "STATE_FAILED"
DAY_S = 86_400.0
SYNCS_OF_A_FILE = 2  # the file and its folder


class Snapshots:
    """Saves ``workers``; ``writes`` counts what that gave to the storage."""

    def __init__(self, settings: StateConfig, workers: Sequence[StreamWorker], now: Now) -> None:
        self._settings, self._workers = settings, workers
        self.writes = Writes()
        self._due_s = now.monotonic_s + settings.interval_s

    def tick(self, now: Now) -> None:
        """Save all streams if it is time."""
        if now.monotonic_s >= self._due_s:
            written = self.save_all()
            affordable_s = written * DAY_S / (self._settings.budget_mb_per_day * 1e6)
            self._due_s = now.monotonic_s + max(self._settings.interval_s, affordable_s)

    def save_all(self) -> int:
        """Save all streams now; returns the bytes written."""
        return sum(self.save(worker) for worker in self._workers)

    def save(self, worker: StreamWorker) -> int:
        """Save one stream; a failure is said once and shown by STATE_FAILED."""
        try:
            written = worker.snapshot()
        except EdgeTsadError as e:
            if STATE_FAILED not in worker.health:
                log.error("%s: its state is not saved: %s", worker.facts.stream, e)
            worker.health.add(STATE_FAILED)
            return 0
        worker.health.discard(STATE_FAILED)
        if written:
            self.writes += Writes(written, SYNCS_OF_A_FILE)
        return written
