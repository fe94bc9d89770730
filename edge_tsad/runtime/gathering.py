"""Samples that come one by one, taken a few at a time: a call costs far more than a row."""

from __future__ import annotations

import numpy as np

from edge_tsad.runtime.sources.base import Batch
from edge_tsad.types import Timing

__all__ = ["Gathering"]

SHORTEST_S, LONGEST_S = 0.1, 0.5
PART = 20
MOST_ROWS = 512


class Gathering:
    """What has come of one stream and was not scored yet.

    It waits for a twentieth of the declared delay at most, and never longer than half a second. How
    a stream is cut makes no difference to its scores.
    """

    def __init__(self, timing: Timing) -> None:
        self._pace_s = min(max(timing.delay_s / PART, SHORTEST_S), LONGEST_S)
        self._parts: list[Batch] = []
        self._rows = 0
        self._due_s = float("-inf")

    def add(self, batch: Batch) -> bool:
        """Keep it; whether there is now so much that it should be taken at once."""
        self._parts.append(batch)
        self._rows += len(batch)
        return self._rows >= MOST_ROWS

    def due(self, monotonic_s: float) -> bool:
        """Whether it is time to take what there is; the next time is then a pace later."""
        if monotonic_s < self._due_s:
            return False
        self._due_s = monotonic_s + self._pace_s
        return True

    def take(self) -> Batch | None:
        """All of it as one batch; None where there is nothing."""
        parts, self._parts, self._rows = self._parts, [], 0
        if len(parts) < 2:
            return parts[0] if parts else None
        times = np.concatenate([part.times_ns for part in parts])
        return Batch(times, np.concatenate([part.values for part in parts]))
