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
    the broker refused is tried again after a minute or over a new connection, and the others go on
    meanwhile.

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
        self._again: list[tuple[int, int]] = []
        self._in_flight: dict[int, str] = {}
        self._not_before_s: dict[int, float] = {}
        self._refused_of: dict[int, str] = {}
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
            self._not_before_s.clear()  # another connection may have other rights
        try:
            wanted = self.waiting or self._again
            if wanted and self._connection and len(self._in_flight) < WINDOW:
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

    @property
    def refused_streams(self) -> set[str]:
        """The streams of which the broker refuses a message."""
        return {stream.partition("/")[0] for stream in self._refused_of.values()}

    def replay(self, first: int, last: int) -> None:
        """Send the rows from ``first`` to ``last`` once more, as far as they are kept."""
        self._again.append((first, last))

    def _take_answers(self, now: Now) -> None:
        for answer in self.sink.acknowledgements():
            stream = self._in_flight.pop(answer.token, "")
            if answer.refused:
                self._refused_of[answer.token] = stream
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
                self._refused_of.pop(answer.token, None)
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
        waiting = self._in_flight.keys() | self._unsettled
        waiting |= {seq for seq, due in self._not_before_s.items() if due > now.monotonic_s}
        for row in self.outbox.pending(limit=WINDOW + len(waiting)):
            if len(self._in_flight) >= WINDOW:
                return
            if row.seq in waiting:
                continue
            if not self.sink.deliver(self._topic(row.stream), self._payload(row, now), row.seq):
                return
            self._in_flight[row.seq] = row.stream
        self._send_again()

    def _send_again(self) -> None:
        """What was asked for once more, while nothing new waits."""
        while self._again and len(self._in_flight) < WINDOW:
            first, last = self._again[0]
            rows = [row for row in self.outbox.replay(first, WINDOW) if row.seq <= last]
            for row in rows:
                if len(self._in_flight) >= WINDOW:
                    return
                if row.seq not in self._in_flight:
                    if not self.sink.deliver(
                        self._topic(row.stream), mark_late(row.payload), row.seq
                    ):
                        return
                    self._in_flight[row.seq] = row.stream
                self._again[0] = (row.seq + 1, last)
            if not rows:
                del self._again[0]

    def _payload(self, row: Row, now: Now) -> bytes:
        age_s = self.outbox.powered_s(now) - row.committed_s
        late = row.seq < self._first_own or age_s > LATE_AFTER_S
        return mark_late(row.payload) if late else row.payload


def mark_late(payload: bytes) -> bytes:
    """The alert with ``late`` set: it arrives long after it was raised, or once more."""
    alert = json.loads(payload)
    alert["late"] = True
    return json.dumps(alert, separators=(",", ":"), ensure_ascii=False).encode()
