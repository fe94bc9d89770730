"""Whether the time that stamps the samples of a live source can be believed."""

from __future__ import annotations

import math

from edge_tsad.types import NANOSECONDS, Now

__all__ = ["PLAUSIBLE_NS", "ClockJudge"]

PLAUSIBLE_NS = 1_577_836_800 * NANOSECONDS
"""2020: a clock before it was never set."""


class ClockJudge:
    """CLOCK: what stamps the samples of a live source cannot be believed.

    The clock is before 2020, nothing keeps it right for ``patience_s``, it jumped by more than 2 s
    and a step within one boot, or the samples' own times are more than 300 s from it. A jump or a
    foreign time counts for ten minutes.
    """

    JUMP_S = 2.0
    APART_S = 300.0
    MEMORY_S = 600.0

    def __init__(self, step_s: float, patience_s: float) -> None:
        self.bad = False
        self.why = ""
        self.jumped_back_s = 0.0
        self._jump_s, self._patience_s = max(self.JUMP_S, step_s), patience_s
        self._offset: tuple[str, float] | None = None
        self._unsynchronised_s: float | None = None
        self._until_s = -math.inf
        self._recent = ""

    def take(self, newest_ns: int, now: Now) -> None:
        """A live source has stamped its newest sample so."""
        apart_s = (newest_ns - now.wall_ns) / NANOSECONDS
        if now.synchronised and now.wall_ns > PLAUSIBLE_NS and abs(apart_s) > self.APART_S:
            self._remember(now, f"samples are stamped {apart_s:+.0f} s off this machine's clock")

    def advance(self, now: Now, *, live: bool) -> None:
        """Time has passed; ``jumped_back_s`` is how far the clock was set back since last time."""
        wall_s = now.wall_ns / NANOSECONDS
        offset = (now.boot_id, wall_s - now.monotonic_s)
        moved_s = 0.0
        if self._offset is not None and self._offset[0] == now.boot_id:
            moved_s = offset[1] - self._offset[1]
        self._offset = offset
        self.jumped_back_s = max(0.0, -moved_s) if live and -moved_s > self._jump_s else 0.0
        if abs(moved_s) > self._jump_s:
            self._remember(now, f"the clock jumped by {moved_s:+.1f} s")
        if now.synchronised:
            self._unsynchronised_s = None
        elif self._unsynchronised_s is None:
            self._unsynchronised_s = now.monotonic_s
        self.why = self._judge(now) if live else ""
        self.bad = bool(self.why)

    def _judge(self, now: Now) -> str:
        if now.wall_ns < PLAUSIBLE_NS:
            return "the clock was never set: it says a time before 2020"
        if now.monotonic_s < self._until_s:
            return self._recent
        since_s = self._unsynchronised_s
        if since_s is not None and now.monotonic_s - since_s >= self._patience_s:
            return "nothing keeps the clock right: it is not synchronised"
        return ""

    def _remember(self, now: Now, why: str) -> None:
        self._recent, self._until_s = why, now.monotonic_s + self.MEMORY_S
