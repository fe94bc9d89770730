"""What an agent tells of its device, as read by whoever asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_tsad.decode import decode
from edge_tsad.errors import TransportError
from firmware_bridge.machine import Phase
from firmware_bridge.records import Entry, Release

__all__ = ["HistoryReport", "StatusReport"]


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The answer to ``status``, ``install``, ``confirm`` and ``rollback``.

    ``active`` is what the slot holds, whatever the state says. ``candidate`` is what is scored
    beside it for ``trial_remaining_s`` more, and ``so_far`` what that has shown. ``previous`` may
    be rolled back to, the latest last. ``problem`` is empty where all is well.
    """

    version: str
    phase: Phase
    active: Release | None
    candidate: Release | None
    trial_remaining_s: float | None
    so_far: str
    previous: tuple[Release, ...]
    floor: int
    last: Entry | None
    problem: str

    @classmethod
    def read(cls, table: dict[str, Any], gateway: str) -> StatusReport:
        """The report in a reply.

        Raises:
            TransportError: it is none.
        """
        return decode(cls, table, gateway, TransportError)


@dataclass(frozen=True, slots=True)
class HistoryReport:
    """The answer to ``history``: the oldest entry first."""

    entries: tuple[Entry, ...]

    @classmethod
    def read(cls, table: dict[str, Any], gateway: str) -> HistoryReport:
        """The report in a reply.

        Raises:
            TransportError: it is none.
        """
        return decode(cls, table, gateway, TransportError)
