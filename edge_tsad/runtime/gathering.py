"""Samples that come one by one, taken a few at a time: a call costs far more than a row."""

from __future__ import annotations

import numpy as np

from edge_tsad.runtime.sources.base import Batch
from edge_tsad.types import Timing

__all__ = ["Gathering", "pace_s"]

SHORTEST_S, LONGEST_S = 0.1, 1.0
PART = 20
MOST_ROWS = 512


def pace_s(timing: Timing) -> float:
    """How often samples are taken: a twentieth of the declared delay, 0.1 s to 1 s."""
    return min(max(timing.delay_s / PART, SHORTEST_S), LONGEST_S)


class Gathering:
    """What has come of one stream and was not scored yet; it waits for a pace at most.

    How a stream is cut makes no difference to its scores.
    """

    def __init__(self, timing: Timing) -> None:
        self._pace_s = pace_s(timing)
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
