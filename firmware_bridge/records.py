"""What the agent remembers of bundles, trials and events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_tsad.types import Now

__all__ = ["Entry", "Event", "Release", "Trial"]

Event = Literal[
    "received", "verified", "staged", "self-tested", "trial", "committed", "rolled back",
    "refused", "interrupted",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Release:
    """What is remembered of a bundle; ``transfer`` is the SHA-256 of its file, in hexadecimal."""

    digest: str
    transfer: str
    name: str
    version: str
    counter: int
    minimum_counter: int

    @property
    def label(self) -> str:
        """Name and version."""
        return f"{self.name}-{self.version}"


@dataclass(frozen=True, slots=True)
class Trial:
    """From ``begun_s`` to ``until_s`` on the monotonic clock of one boot."""

    boot_id: str
    begun_s: float
    until_s: float

    def left_s(self, now: Now) -> float:
        """Seconds until it is over."""
        return max(0.0, self.until_s - now.monotonic_s)

    def over(self, now: Now) -> str:
        """Why the trial has ended unconfirmed; empty while it lasts."""
        if now.boot_id != self.boot_id or now.monotonic_s < self.begun_s:
            return "the gateway was restarted before it was confirmed"
        if now.monotonic_s >= self.until_s:
            return f"it was not confirmed within {self.until_s - self.begun_s:.0f} s"
        return ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the history; ``wall_ns`` is to be believed only where ``synchronised``."""

    number: int
    event: Event
    label: str
    digest: str
    transfer: str
    reason: str
    wall_ns: int
    synchronised: bool
