"""What a runtime says of a candidate that it scores beside the active bundle.

The runtime writes it, the agent of ``firmware_bridge`` judges it: one small JSON file in a folder
that both may use. It lives no longer than the boot it was written in and is therefore not synced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_tsad.decode import canonical_json, decode, encode, parse_json
from edge_tsad.errors import BundleError

__all__ = ["REPORT", "REPORT_BYTES", "StreamTrial", "TrialReport"]

REPORT = "reports/trial.json"
"""Where it is, below the agent's folder."""
REPORT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class StreamTrial:
    """One stream so far.

    ``points`` were scored by the candidate. ``alarms`` are its openings and ``active_alarms`` those
    of the active bundle meanwhile, ``expected`` how many the candidate's budget allows on average.
    ``over`` and ``active_over`` are the points at or above either threshold.
    ``p99_ms`` is the candidate's time for a window, of ``windows`` windows, and ``between_ms`` the
    time from one window to the next (0 for data without a rate).
    """

    stream: str
    points: int
    alarms: int
    active_alarms: int
    over: int
    active_over: int
    expected: float
    windows: int
    p99_ms: float
    active_p99_ms: float
    between_ms: float


@dataclass(frozen=True, slots=True)
class TrialReport:
    """All streams of one slot so far, from ``since_s`` to ``at_s`` on the monotonic clock.

    ``process`` is the process that writes it, ``memory_mb`` how much more memory it has than before
    the candidate was opened. ``problem`` ends the trial: the candidate could not be opened or run.
    """

    candidate: str
    boot_id: str
    process: int
    since_s: float
    at_s: float
    memory_mb: float
    problem: str
    streams: tuple[StreamTrial, ...]
    format_version: Literal[1] = 1

    def pack(self) -> bytes:
        """The canonical spelling."""
        return canonical_json(encode(self))

    @classmethod
    def read(cls, data: bytes) -> TrialReport:
        """The report in ``data``.

        Raises:
            BundleError: it is none.
        """
        table = parse_json(data, REPORT, BundleError)
        return decode(cls, table, REPORT, BundleError)
