"""What a run cost: latency per window and peak memory, in fixed memory itself."""

from __future__ import annotations

import math
import resource
import time
from pathlib import Path

import numpy as np

from edge_tsad.runtime.backends.base import Backend
from edge_tsad.types import FloatArray

__all__ = ["Latency", "TimedBackend", "peak_rss_mb", "rss_mb"]

STATUS = Path("/proc/self/status")
STATM = Path("/proc/self/statm")
SHORTEST_S = 1e-6
PER_DECADE = 50
BINS = 8 * PER_DECADE


class Latency:
    """Quantiles of durations between 1 µs and 100 s, within 2.4 %."""

    def __init__(self) -> None:
        self._counts = np.zeros(BINS, np.int64)
        self.longest_s = 0.0

    @property
    def count(self) -> int:
        """Durations so far."""
        return int(self._counts.sum())

    def add(self, duration_s: float, times: int = 1) -> None:
        """``times`` durations of ``duration_s``."""
        position = PER_DECADE * math.log10(max(duration_s, SHORTEST_S) / SHORTEST_S)
        self._counts[min(int(position), BINS - 1)] += times
        self.longest_s = max(self.longest_s, duration_s)

    def quantile_s(self, q: float) -> float | None:
        """The duration that a part ``q`` in 0…1 of all does not exceed; None before the first."""
        if not self.count:
            return None
        position = int(np.searchsorted(np.cumsum(self._counts), max(1, q * self.count)))
        middle = SHORTEST_S * 10 ** ((position + 0.5) / PER_DECADE)
        return float(min(middle, self.longest_s))


class TimedBackend:
    """A backend that measures how long each window takes."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.latency = Latency()

    @property
    def name(self) -> str:
        """The backend's own name."""
        return self._backend.name

    @property
    def max_batch(self) -> int:
        """The backend's own limit."""
        return self._backend.max_batch

    def score(self, windows: FloatArray, observed: FloatArray) -> dict[str, FloatArray]:
        """As the backend's; a batch counts as so many windows of equal duration.

        Raises:
            BackendError: as the backend's.
        """
        begun_s = time.perf_counter()
        outputs = self._backend.score(windows, observed)
        if len(windows):
            self.latency.add((time.perf_counter() - begun_s) / len(windows), len(windows))
        return outputs


def rss_mb() -> float:
    """Resident memory of this process now, in MB (10⁶ bytes); 0 where the kernel does not say."""
    if not STATM.exists():
        return 0.0
    return int(STATM.read_text().split()[1]) * resource.getpagesize() / 1e6


def peak_rss_mb() -> float:
    """Peak resident memory of this process in MB (10⁶ bytes).

    The kernel's high-water mark of this program: ``getrusage`` would report that of the process it
    was started by, where that was larger.
    """
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
