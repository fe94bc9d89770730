"""What the agent remembers of bundles, trials and events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_tsad.bundle import Bundle
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

    @classmethod
    def of(cls, bundle: Bundle, transfer: str) -> Release:
        """That of a bundle that came as ``transfer``."""
        m = bundle.manifest
        return cls(bundle.digest, transfer, m.name, m.version, m.counter, m.minimum_counter)

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

    @property
    def span_s(self) -> float:
        """How long it lasts."""
        return self.until_s - self.begun_s

    def of_this_boot(self, now: Now) -> bool:
        """Whether the machine has run through since it began; its clock began anew otherwise."""
        return now.boot_id == self.boot_id and now.monotonic_s >= self.begun_s


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
