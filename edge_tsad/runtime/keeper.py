"""A recording beside the scoring: when its storage fails, the scoring goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edge_tsad.errors import DataError
from edge_tsad.runtime.clock_judge import PLAUSIBLE_NS
from edge_tsad.runtime.history import History
from edge_tsad.runtime.opening import OpenStream
from edge_tsad.types import Cells, Now

__all__ = ["RECORD_FAILED", "Keeper"]

log = logging.getLogger(__name__)

RECORD_FAILED = "RECORD_FAILED"


class Keeper:
    """Keeps the cells of ``stream``; ``now`` is set by its owner before cells come."""

    def __init__(self, stream: OpenStream, history: History) -> None:
        self.stream = stream
        self.history = history
        self.now = Now(0, 0)

    @property
    def words(self) -> set[str]:
        """RECORD_FAILED while it fails."""
        return {RECORD_FAILED} if self.history.failing else set()

    def add(self, cells: Cells) -> None:
        """Keep cells, but none that a clock has stamped which was never set."""
        if self.now.wall_ns >= PLAUSIBLE_NS or not self.stream.source.live:
            self._try(lambda: self.history.add(cells, self.now))

    def tick(self, now: Now) -> None:
        """Time passes: store what is due."""
        self.now = now
        self._try(lambda: self.history.tick(now))

    def close(self, now: Now) -> None:
        """Store what is left, and let go."""
        self._try(lambda: self.history.close(now))

    def _try(self, step: Callable[[], None]) -> None:
        failing = self.history.failing
        try:
            step()
        except DataError as e:
            if not failing:
                log.error("%s: %s; it is tried again", self.stream.facts.stream, e)
