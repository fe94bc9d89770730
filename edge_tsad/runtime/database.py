"""The outbox's database file: begun durably, checked when opened, set aside when damaged."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import uuid
from pathlib import Path

from edge_tsad.files import make_folder, sync_folder

__all__ = ["open_database"]

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE alerts (seq INTEGER PRIMARY KEY, stream TEXT NOT NULL, payload BLOB NOT NULL,"
    " committed_s REAL NOT NULL, settled_s REAL)",
    "CREATE INDEX unsettled ON alerts (seq) WHERE settled_s IS NULL",
    "CREATE TABLE streams (stream TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID",
)
META = {
    "next_seq": 1, "powered_s": 0.0, "monotonic_s": 0.0, "boot_id": "",
    "dropped": 0, "dropped_first": 0, "dropped_last": 0,
}  # fmt: skip


def open_database(path: Path) -> tuple[sqlite3.Connection, Path | None]:
    """A sound database, and where a damaged one was moved to in whose place it was begun.

    Raises:
        OSError: the folder cannot be made or synced.
        sqlite3.Error: the file is locked or cannot be written.
    """
    make_folder(path.parent)
    set_aside = None
    try:
        db = connect(path)
    except sqlite3.DatabaseError as e:
        if isinstance(e, sqlite3.OperationalError) and "no such table" not in str(e):
            raise  # locked, full or not writable is no damage
        first = salvage_next_seq(path)
        set_aside = move_aside(path)
        log.error(
            "the outbox was damaged (%s) and is set aside as %s; a new one begins", e, set_aside
        )
        db = connect(path)
        db.execute("UPDATE meta SET value = ? WHERE key = 'next_seq'", (first,))
    sync_folder(path.parent)  # else a new file's name may be lost with the power
    return db, set_aside


def connect(path: Path) -> sqlite3.Connection:
    """An open and checked database with the schema.

    Raises:
        sqlite3.Error: it is damaged, of another program, or cannot be opened.
    """
    db = sqlite3.connect(path, isolation_level=None, timeout=5)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and not db.execute("SELECT * FROM sqlite_master").fetchall():
            values = [*META.items(), ("epoch", uuid.uuid4().hex[:8])]
            with db:
                db.execute("BEGIN IMMEDIATE")
                for statement in SCHEMA:
                    db.execute(statement)
                db.executemany("INSERT INTO meta VALUES (?, ?)", values)
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            return db
        sound = db.execute("PRAGMA quick_check").fetchone()[0]
        if version != SCHEMA_VERSION or sound != "ok":
            raise sqlite3.DatabaseError(
                f"schema version {version}" if sound == "ok" else str(sound)
            )
        if len(db.execute("SELECT key FROM meta").fetchall()) != len(META) + 1:
            raise sqlite3.DatabaseError("its table meta is not whole")
    except BaseException:
        db.close()
        raise
    return db


def salvage_next_seq(path: Path) -> int:
    """The next sequence number, as far as a damaged database still tells; else 1."""
    with (
        contextlib.suppress(sqlite3.Error, TypeError, ValueError),
        contextlib.closing(sqlite3.connect(path)) as db,
    ):
        return int(db.execute("SELECT value FROM meta WHERE key = 'next_seq'").fetchone()[0])
    return 1


def move_aside(path: Path) -> Path:
    """Rename a database with its WAL so that nothing overwrites it; returns its new path."""
    free = next(
        target
        for number in range(1, 1_000_000)
        if not (target := path.with_name(f"{path.stem}-damaged-{number}{path.suffix}")).exists()
    )
    for ending in ("-wal", "-shm", ""):
        part = path.with_name(path.name + ending)
        if part.exists():
            os.replace(part, free.with_name(free.name + ending))  # noqa: PTH105
    return free
