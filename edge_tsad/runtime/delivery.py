"""From the outbox to the broker, in order, until each alert is acknowledged."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable

from edge_tsad.runtime.outbox import Outbox, Row
from edge_tsad.runtime.sinks.base import Sink
from edge_tsad.types import Now

__all__ = ["Delivery", "mark_late"]

log = logging.getLogger(__name__)

WINDOW = 16  # below the 20 that paho and most brokers hold in flight
LATE_AFTER_S = 60.0
RETRY_REFUSED_S = 60.0
PRUNE_EVERY_S = 60.0


class Delivery:
    """Sends what is pending and settles what was acknowledged.

    A row is late when it was committed by an earlier process or more than a minute ago. One that
    the broker refused is tried again after a minute, the others meanwhile go on.

    Args:
        outbox: the queue.
        sink: where the rows go.
        topic: the topic of a stream's alerts.
    """

    def __init__(self, outbox: Outbox, sink: Sink, topic: Callable[[str], str]) -> None:
        self.outbox = outbox
        self.sink = sink
        self.refused = ""
        self._topic = topic
        self._first_own = outbox.next_seq
        self._connection = 0
        self._in_flight: set[int] = set()
        self._not_before_s: dict[int, float] = {}
        self._unsettled: set[int] = set()
        self._failing = False
        self._prune_at_s = 0.0

    def tick(self, now: Now) -> None:
        """Take in answers, settle, prune, and send as much as may be in flight."""
        self._take_answers(now)
        failure = ""
        try:
            self._store(now)
        except sqlite3.Error as e:
            failure = f"written: {e}"
        if self.sink.connection != self._connection:
            self._connection = self.sink.connection
            self._in_flight.clear()
        try:
            if self.waiting and self._connection and len(self._in_flight) < WINDOW:
                self._send(now)
        except sqlite3.Error as e:
            failure = failure or f"read: {e}"
        if failure and not self._failing:
            log.error("the outbox could not be %s; it is tried again", failure)
        self._failing = bool(failure)

    @property
    def waiting(self) -> bool:
        """Whether something was not acknowledged yet."""
        return self.outbox.counts.pending > 0

    def _take_answers(self, now: Now) -> None:
        for answer in self.sink.acknowledgements():
            self._in_flight.discard(answer.token)
            if answer.refused:
                if not self.refused:
                    log.error(
                        "the broker refuses alerts (%s); they are kept and tried again",
                        answer.refused,
                    )
                self.refused = answer.refused
                self._not_before_s[answer.token] = now.monotonic_s + RETRY_REFUSED_S
            else:
                self._unsettled.add(answer.token)
                self._not_before_s.pop(answer.token, None)
                if not self._not_before_s:
                    self.refused = ""

    def _store(self, now: Now) -> None:
        if self._unsettled:
            self.outbox.settle(self._unsettled, now)
            self._unsettled.clear()
        if now.monotonic_s >= self._prune_at_s:
            self._prune_at_s = now.monotonic_s + PRUNE_EVERY_S
            lost = self.outbox.prune(now)
            if lost:
                counts = self.outbox.counts
                log.error(
                    "outbox full: %d alerts were dropped unsent; %d so far, numbers %d to %d",
                    lost, counts.dropped, counts.dropped_first, counts.dropped_last,
                )  # fmt: skip

    def _send(self, now: Now) -> None:
        waiting = self._in_flight | self._unsettled
        waiting |= {seq for seq, due in self._not_before_s.items() if due > now.monotonic_s}
        for row in self.outbox.pending(limit=WINDOW + len(waiting)):
            if len(self._in_flight) >= WINDOW:
                return
            if row.seq in waiting:
                continue
            if not self.sink.deliver(self._topic(row.stream), self._payload(row, now), row.seq):
                return
            self._in_flight.add(row.seq)

    def _payload(self, row: Row, now: Now) -> bytes:
        age_s = self.outbox.powered_s(now) - row.committed_s
        late = row.seq < self._first_own or age_s > LATE_AFTER_S
        return mark_late(row.payload) if late else row.payload


def mark_late(payload: bytes) -> bytes:
    """The alert with ``late`` set: it arrives long after it was raised, or once more."""
    alert = json.loads(payload)
    alert["late"] = True
    return json.dumps(alert, separators=(",", ":"), ensure_ascii=False).encode()
