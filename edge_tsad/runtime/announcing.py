"""The alert messages of one stream, from raised to committed, with what a silence keeps back."""

from __future__ import annotations

import json
import logging
import sqlite3
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edge_tsad.runtime import payload
from edge_tsad.runtime.outbox import Outbox
from edge_tsad.runtime.payload import AlertIdentity
from edge_tsad.types import Now

__all__ = ["Announcer", "Write"]

log = logging.getLogger(__name__)

Write = Callable[[dict[str, Any], AlertIdentity], bytes]
"""Makes a message from the one before it and its own identity."""


@dataclass(frozen=True, slots=True)
class Raised:
    """A message about the alert ``id`` that is not committed yet; a ``hushed`` one is not sent."""

    id: str
    write: Write
    hushed: bool = False
    aside: bool = False


class Announcer:
    """Numbers the messages of ``stream`` and commits them; ``facts`` are those of before, if any.

    In a silence nothing is sent but the end of an alert that had been told. An alert that was
    never told has no end either, and one that outlasts the silence is told then. So it is with the
    summary of a storm.

    Attributes:
        id: of the open alert; empty where none is open.
        counts: messages raised, by kind.
        suppressed: messages that the newest silence has kept back, by kind.
        failing: whether the last attempt to commit failed.
    """

    def __init__(self, stream: str, outbox: Outbox, facts: Mapping[str, Any]) -> None:
        self.stream = stream
        self.id: str = facts.get("alert_id", "")
        self.counts: Counter[str] = Counter()
        self.suppressed: Counter[str] = Counter(facts.get("suppressed", {}))
        self.failing = False
        self._announced: str = facts.get("announced", self.id)
        self._last: dict[str, Any] = facts.get("last_message", {})
        self._aside: dict[str, Any] = facts.get("aside", {})
        self._summary: str = facts.get("summary", "")
        self._summary_told: str = facts.get("summary_told", self._summary)
        self._outbox = outbox
        self._uncommitted: list[Raised] = []

    @property
    def uncommitted(self) -> int:
        """How many messages are not in the outbox yet."""
        return len(self._uncommitted)

    def facts(self) -> dict[str, Any]:
        """What is kept with the state of the alert."""
        return {
            "alert_id": self.id,
            "announced": self._announced,
            "suppressed": dict(self.suppressed),
            "last_message": self._last,
            "aside": self._aside,
            "summary": self._summary,
            "summary_told": self._summary_told,
        }

    def add(self, kind: str, write: Write, *, silenced: bool) -> None:
        """Raise a message: ``new``, ``update`` or ``end``."""
        if kind == "new" or not self.id:
            self.id = uuid.uuid4().hex[:16]
        told = self.id == self._announced
        hushed = not told if kind == "end" else silenced
        self._uncommitted.append(Raised(self.id, write, hushed))
        self.counts[kind] += 1
        if hushed:
            self.suppressed[kind] += 1
        else:
            self._announced = self.id
        if kind == "end":
            self.id = self._announced = ""

    def add_aside(self, kind: str, write: Write, *, silenced: bool) -> None:
        """Raise a message of an alert beside the one that is open: a summary."""
        if kind == "new" or not self._summary:
            self._summary = uuid.uuid4().hex[:16]
        told = self._summary == self._summary_told
        hushed = not told if kind == "end" else silenced
        self._uncommitted.append(Raised(self._summary, write, hushed, aside=True))
        self.counts[f"storm {kind}"] += 1
        if not hushed:
            self._summary_told = self._summary
        if kind == "end":
            self._summary = self._summary_told = ""

    def tell(self) -> None:
        """Where no silence holds: tell of what is open and has not been told."""
        if self._summary != self._summary_told:
            self._uncommitted.append(Raised(self._summary, payload.announced, aside=True))
            self._summary_told = self._summary
        if self.id != self._announced:
            self._uncommitted.append(Raised(self.id, payload.announced))
            self._announced = self.id

    def commit(self, state: Callable[[], bytes], now: Now) -> None:
        """Messages and ``state`` in one transaction; on failure they are kept for the next call."""
        if not self._uncommitted:
            return
        before, first = (self._last, self._aside), self._outbox.next_seq
        rows: list[bytes] = []
        for raised in self._uncommitted:
            identity = AlertIdentity(raised.id, first + len(rows), self._outbox.epoch)
            message = raised.write(self._aside if raised.aside else self._last, identity)
            if raised.aside:
                self._aside = json.loads(message)
            else:
                self._last = json.loads(message)
            if not raised.hushed:
                rows.append(message)
        try:
            self._outbox.commit(self.stream, rows, state(), now)
        except sqlite3.Error as e:
            if not self.failing:
                log.error("%s: an alert is not stored yet: %s; tried again", self.stream, e)
            (self._last, self._aside), self.failing = before, True
            return
        self.failing = False
        self._uncommitted.clear()
