"""Ways to break a promise, to see that the suite would notice."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from edge_tsad import files
from edge_tsad.runtime import database, delivery, history
from edge_tsad.runtime.outbox import Outbox
from edge_tsad.types import Now

__all__ = ["mutate", "set_here"]


def set_here(owner: Any, name: str, value: Any) -> None:
    """Of this process alone, which ends soon."""
    setattr(owner, name, value)


def no_sync(_: Any) -> None:
    """A sync that forgets its duty."""


def mutate(name: str) -> None:
    """Break one of the promises, to see that the suite would notice."""
    if name == "synchronous=OFF":
        connect = database.connect

        def careless(path: Path) -> sqlite3.Connection:
            db = connect(path)
            db.execute("PRAGMA synchronous = OFF")
            return db

        set_here(database, "connect", careless)
    elif name == "snapshot folder not synced":
        set_here(files, "sync_folder", no_sync)
    elif name == "segment folder not synced":
        set_here(history, "sync_folder", no_sync)
    elif name == "segment not synced":
        set_here(history.os, "fsync", no_sync)
    elif name == "state not committed":
        commit = Outbox.commit
        set_here(
            Outbox,
            "commit",
            lambda box, stream, rows, _state, now: commit(box, stream, rows, b"", now),
        )
    elif name == "settled too early":
        send = delivery.Delivery._send

        def early(self: delivery.Delivery, now: Now) -> None:
            pending = [row.seq for row in self.outbox.pending()]
            self.outbox.settle(pending, now)
            for row in self.outbox.replay(min(pending, default=1 << 40)):
                self.sink.deliver(self._topic(row.stream), row.payload, row.seq)

        assert send
        set_here(delivery.Delivery, "_send", early)
    else:
        raise ValueError(name)
