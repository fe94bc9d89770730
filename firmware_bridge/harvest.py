"""What the runtime has recorded, read by the agent for whoever fetches it: never written to."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

from edge_tsad.errors import DataError
from edge_tsad.files import reason
from edge_tsad.runtime.segments import segments

__all__ = ["READ_BYTES", "Harvest"]

READ_BYTES = 256 << 10
ALERTS_AT_ONCE = 500
FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}/[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Harvest:
    """The data folder of a runtime."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> list[dict[str, Any]]:
        """``path`` (stream and segment) and ``size`` of what was recorded, the oldest first.

        Raises:
            DataError: it cannot be read.
        """
        history = self.folder / "history"
        try:
            if not history.exists():
                return []
            streams = sorted(path for path in history.iterdir() if path.is_dir())
            found = [path for folder in streams for path in segments(folder)]
            named = [(path.relative_to(history).as_posix(), path) for path in found]
            return [
                {"path": name, "size": path.stat().st_size}
                for name, path in named
                if FILE.fullmatch(name)
            ]
        except OSError as e:
            raise DataError(f"{history}: could not be read: {reason(e)}") from e

    def read(self, path: str, offset: int) -> bytes:
        """A piece of a segment, at most :data:`READ_BYTES`; empty at its end.

        Raises:
            DataError: there is none, it is none, or it cannot be read.
        """
        file = self.folder / "history" / path
        if not FILE.fullmatch(path) or offset < 0 or file.is_symlink():
            raise DataError(f"{path!r}: is no recorded file")
        try:
            with file.open("rb") as opened:
                opened.seek(offset)
                return opened.read(READ_BYTES)
        except OSError as e:
            raise DataError(f"{path}: could not be read: {reason(e)}") from e

    def alerts(self, after: int) -> list[dict[str, Any]]:
        """The next messages of the outbox whose sequence number is above ``after``.

        Raises:
            DataError: the outbox cannot be read.
        """
        path = self.folder / "outbox.db"
        if not path.exists():
            return []
        # Without a runtime there is no journal, and an unwritable folder allows none to be made.
        live = path.with_name("outbox.db-wal").exists()
        how = "mode=ro" if live else "mode=ro&immutable=1"
        query = "SELECT seq, payload FROM alerts WHERE seq > ? ORDER BY seq LIMIT ?"
        try:
            with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?{how}", uri=True)) as base:
                rows = base.execute(query, (after, ALERTS_AT_ONCE)).fetchall()
            return [{"seq": seq, "message": json.loads(payload)} for seq, payload in rows]
        except (sqlite3.Error, ValueError) as e:
            raise DataError(f"{path}: could not be read: {e}") from e
