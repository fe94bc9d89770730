"""The durable queue of alerts: from commit to the broker's acknowledgement nothing is lost.

An SQLite database in WAL mode with ``synchronous=FULL``: a transaction returns after its bytes have
been synced, so an alert that was committed survives a crash and, on storage that honours flushes, a
power cut. The state of a stream's alert is committed together with its rows. A row is settled only
by the broker's acknowledgement, and then kept for a while so that it can be sent again.

Ages count powered-on time: the wall clock of a gateway may be wrong by decades.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_tsad.errors import ConfigError
from edge_tsad.runtime.database import open_database
from edge_tsad.runtime.stats import Writes
from edge_tsad.types import Now

__all__ = ["Bounds", "Counts", "Outbox", "Row"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the queue may hold: rows, bytes of payload, and ages in powered-on seconds."""

    rows: int = 100_000
    bytes: int = 64 << 20
    age_s: float = 90 * 86_400.0
    retention_s: float = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Row:
    """One alert message; ``committed_s`` is powered-on time."""

    seq: int
    stream: str
    payload: bytes
    committed_s: float


@dataclass(frozen=True, slots=True)
class Counts:
    """``rows`` and ``bytes`` are all that is held, ``pending`` the rows that nobody acknowledged.

    ``dropped`` counts rows that a bound removed before they were acknowledged, over the life of the
    database; their sequence numbers lie in ``dropped_first``…``dropped_last``.
    """

    rows: int = 0
    bytes: int = 0
    pending: int = 0
    dropped: int = 0
    dropped_first: int = 0
    dropped_last: int = 0


class Outbox:
    """The queue in the database file ``path``; to be used by one thread of one process.

    ``epoch`` names this database: sequence numbers grow by one within it, over all restarts.
    ``set_aside`` is where a damaged predecessor was moved to when this one was opened, or None.
    ``writes`` counts payloads and states that were committed, and one sync a transaction.
    """

    def __init__(self, path: Path, bounds: Bounds, now: Now) -> None:
        """Open the queue, or begin one.

        Raises:
            ConfigError: the folder or the file cannot be written.
        """
        self.path = path
        self.bounds = bounds
        self.writes = Writes()
        try:
            self._db, self.set_aside = open_database(path)
        except (OSError, sqlite3.Error) as e:
            raise ConfigError(f"outbox {path}: cannot be opened: {e}") from e
        meta = dict(self._db.execute("SELECT key, value FROM meta"))
        self.epoch = str(meta["epoch"])
        self._next_seq = int(meta["next_seq"])
        # CLOCK_MONOTONIC starts at boot: within one boot only what passed since the last write is
        # new, after another one all of it.
        same_boot = now.boot_id and meta["boot_id"] == now.boot_id
        since_s = float(meta["monotonic_s"]) if same_boot else 0.0
        self._powered_base_s = float(meta["powered_s"]) - since_s
        self._counts = self._count(meta)

    def _count(self, meta: dict[str, Any]) -> Counts:
        rows, size, pending = self._db.execute(
            "SELECT count(*), coalesce(sum(length(payload)), 0), "
            "count(*) - count(settled_s) FROM alerts"
        ).fetchone()
        dropped = [int(meta[key]) for key in ("dropped", "dropped_first", "dropped_last")]
        return Counts(rows, size, pending, *dropped)

    @property
    def counts(self) -> Counts:
        """What is held and what was dropped."""
        return self._counts

    @property
    def next_seq(self) -> int:
        """Sequence number of the next row."""
        return self._next_seq

    def powered_s(self, now: Now) -> float:
        """Powered-on seconds that this queue has seen."""
        return self._powered_base_s + now.monotonic_s

    def commit(self, stream: str, payloads: Sequence[bytes], state: bytes, now: Now) -> None:
        """Append rows, numbered from :attr:`next_seq` on, and keep the stream's state with them.

        One transaction: after it returns all of it is durable, and if it raises none of it is
        there.

        Raises:
            sqlite3.Error: the storage is full or failed; try again later.
        """
        powered_s = self.powered_s(now)
        first, after = self._next_seq, self._next_seq + len(payloads)
        with self._transaction(now):
            self._db.executemany(
                "INSERT INTO alerts VALUES (?, ?, ?, ?, NULL)",
                [(first + i, stream, data, powered_s) for i, data in enumerate(payloads)],
            )
            self._db.execute("REPLACE INTO streams VALUES (?, ?)", (stream, state))
            self._write_meta(next_seq=after)
        self._next_seq = after
        self.writes += Writes(sum(map(len, payloads)) + len(state))
        self._counts = replace(
            self._counts,
            rows=self._counts.rows + len(payloads),
            bytes=self._counts.bytes + sum(map(len, payloads)),
            pending=self._counts.pending + len(payloads),
        )

    def keep(self, key: str, state: bytes, now: Now) -> None:
        """Keep a state that belongs to no row; see :meth:`state`. Durable when this returns.

        Raises:
            sqlite3.Error: the storage failed; what was kept before stays.
        """
        with self._transaction(now):
            self._db.execute("REPLACE INTO streams VALUES (?, ?)", (key, state))

    def state(self, stream: str) -> bytes | None:
        """The state that was committed last for ``stream``."""
        row = self._db.execute("SELECT state FROM streams WHERE stream = ?", (stream,)).fetchone()
        return None if row is None else bytes(row[0])

    def pending(self, after: int = 0, limit: int = 20) -> list[Row]:
        """The oldest rows beyond the number ``after`` that nobody has acknowledged."""
        return self._rows("settled_s IS NULL AND seq > ?", after, limit)

    def replay(self, from_seq: int, limit: int = 20) -> list[Row]:
        """Rows from the number ``from_seq`` on, acknowledged or not, as far as they are kept."""
        return self._rows("seq >= ?", from_seq, limit)

    def of_alert(self, stream: str, alert_id: str) -> list[bytes]:
        """The messages of ``stream`` that are kept and hold the text ``alert_id``, oldest first."""
        found = self._db.execute(
            "SELECT payload FROM alerts WHERE stream = ? AND instr(payload, CAST(? AS BLOB)) "
            "ORDER BY seq",
            (stream, alert_id),
        )
        return [bytes(row[0]) for row in found]

    @property
    def oldest_seq(self) -> int:
        """The number of the oldest row that is kept; :attr:`next_seq` if there is none."""
        row = self._db.execute("SELECT min(seq) FROM alerts").fetchone()
        return self._next_seq if row[0] is None else int(row[0])

    def kept(self, first: int, last: int) -> int:
        """How many rows with numbers from ``first`` to ``last`` are kept."""
        found = self._db.execute(
            "SELECT count(*) FROM alerts WHERE seq BETWEEN ? AND ?", (first, last)
        )
        return int(found.fetchone()[0])

    def _rows(self, where: str, seq: int, limit: int) -> list[Row]:
        found = self._db.execute(
            f"SELECT seq, stream, payload, committed_s FROM alerts WHERE {where} "  # noqa: S608
            "ORDER BY seq LIMIT ?",
            (seq, limit),
        )
        return [Row(*row) for row in found]

    def settle(self, numbers: Iterable[int], now: Now) -> None:
        """Mark rows as acknowledged by the broker.

        Raises:
            sqlite3.Error: the storage failed; the rows stay pending.
        """
        powered_s = self.powered_s(now)
        with self._transaction(now):
            done = self._db.executemany(
                "UPDATE alerts SET settled_s = ? WHERE seq = ? AND settled_s IS NULL",
                [(powered_s, seq) for seq in numbers],
            ).rowcount
        self._counts = replace(self._counts, pending=self._counts.pending - done)

    def prune(self, now: Now) -> int:
        """Keep the bounds: settled rows go first, then the oldest.

        Returns:
            How many rows were dropped that nobody had acknowledged.

        Raises:
            sqlite3.Error: the storage failed; nothing is removed.
        """
        powered_s = self.powered_s(now)
        aged = self._db.execute(
            "SELECT seq, length(payload), settled_s FROM alerts WHERE settled_s < ?"
            " OR (settled_s IS NULL AND committed_s < ?)",
            (powered_s - self.bounds.retention_s, powered_s - self.bounds.age_s),
        ).fetchall()
        doomed = {row[0]: row for row in aged}
        rows = self._counts.rows - len(doomed)
        size = self._counts.bytes - sum(row[1] for row in aged)
        if rows > self.bounds.rows or size > self.bounds.bytes:
            for row in self._db.execute(
                "SELECT seq, length(payload), settled_s FROM alerts ORDER BY settled_s IS NULL, seq"
            ):
                if rows <= self.bounds.rows and size <= self.bounds.bytes:
                    break
                if row[0] not in doomed:
                    doomed[row[0]] = row
                    rows, size = rows - 1, size - row[1]
        return self._drop(sorted(doomed.values()), now) if doomed else 0

    def _drop(self, doomed: list[tuple[int, int, float | None]], now: Now) -> int:
        lost = [row[0] for row in doomed if row[2] is None]
        old = self._counts
        new = replace(
            old,
            rows=old.rows - len(doomed),
            bytes=old.bytes - sum(row[1] for row in doomed),
            pending=old.pending - len(lost),
        )
        if lost:
            new = replace(
                new,
                dropped=old.dropped + len(lost),
                dropped_first=min(old.dropped_first or lost[0], lost[0]),
                dropped_last=max(old.dropped_last, lost[-1]),
            )
        with self._transaction(now):
            self._db.executemany("DELETE FROM alerts WHERE seq = ?", [(r[0],) for r in doomed])
            self._write_meta(
                dropped=new.dropped,
                dropped_first=new.dropped_first,
                dropped_last=new.dropped_last,
            )
        self._counts = new
        return len(lost)

    @contextlib.contextmanager
    def _transaction(self, now: Now) -> Iterator[None]:
        """All of the block and the powered-on time so far, or nothing."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._write_meta(
                powered_s=self.powered_s(now), monotonic_s=now.monotonic_s, boot_id=now.boot_id
            )
        self.writes += Writes(syncs=1)

    def _write_meta(self, **values: float | str) -> None:
        self._db.executemany(
            "UPDATE meta SET value = ? WHERE key = ?", [(v, k) for k, v in values.items()]
        )

    def close(self) -> None:
        """Close the database; what was committed stays."""
        self._db.close()
