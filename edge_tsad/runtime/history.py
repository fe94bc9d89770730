"""A bounded, crash-safe recording of a stream on its grid, so that "last month" exists.

A folder of segment files. Each begins with what it holds and goes on with blocks of rows; a block
is appended and synced as one, and its checksum tells a whole one from one that the power cut. The
oldest segment goes when the next block would not fit. What is lost by a crash or a power cut is at
most what has not been synced yet: the rows of the last ``sync_s`` seconds.
"""

from __future__ import annotations

import logging
import os
from io import FileIO
from pathlib import Path
from typing import TextIO

from edge_tsad.errors import ConfigError, DataError
from edge_tsad.files import reason, sync_folder
from edge_tsad.runtime.lock import lock
from edge_tsad.runtime.segments import Layout, encode_block, scan, segments
from edge_tsad.types import Cells, Now

__all__ = ["History"]

log = logging.getLogger(__name__)

SEGMENTS = 16
LEAST_BYTES = 1 << 16
MOST_ROWS = 4096
PATIENCE = 16  # times MOST_ROWS that are kept in memory while the storage fails


class History:
    """Appends cells to the segments in ``folder``; to be used by one thread of one process.

    Args:
        folder: is made where it does not exist; held against other processes.
        layout: grid and channels. Older segments of another layout stay until their turn comes.
        max_bytes: bound of all segments together, at least 64 KiB.
        sync_s: longest time that rows stay in memory, seconds of the monotonic clock.

    Attributes:
        rows: rows given so far.
        dropped: rows that could not be stored.
        failing: whether the last attempt to store failed.
        written, syncs: bytes written and ``fsync`` calls made so far.

    Raises:
        ConfigError: the folder cannot be used, or ``max_bytes`` or ``sync_s`` is out of range.
    """

    def __init__(
        self, folder: Path, layout: Layout, max_bytes: int = 256 << 20, sync_s: float = 60.0
    ) -> None:
        if max_bytes < LEAST_BYTES:
            raise ConfigError(f"history.max_mb: {max_bytes / 1e6:g} is less than 0.066")
        if sync_s < 0:
            raise ConfigError(f"history.sync_s: {sync_s} is negative")
        self.folder, self.layout = folder, layout
        self._max_bytes, self._sync_s = max_bytes, sync_s
        self._segment_bytes = max_bytes // SEGMENTS
        self.rows = self.dropped = self.written = self.syncs = 0
        self.failing = False
        self._waiting: list[Cells] = []
        self._waiting_rows = 0
        self._due_s: float | None = None
        self._file: FileIO | None = None
        self._size = 0
        self._lock = hold(folder)
        try:
            self._kept = {path: path.stat().st_size for path in segments(folder)}
            self._continue_last()
        except OSError as e:
            self._lock.close()
            raise ConfigError(f"history: {folder} cannot be used: {reason(e)}") from e

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(self._kept.values())

    def add(self, cells: Cells, now: Now) -> None:
        """Take rows; they are synced within ``sync_s``, see :meth:`tick`.

        Raises:
            DataError: the storage failed; the rows are kept in memory, as far as there is room, and
                tried again.
        """
        if not len(cells):
            return
        self.rows += len(cells)
        self._waiting.append(cells)
        self._waiting_rows += len(cells)
        if self._due_s is None:
            self._due_s = now.monotonic_s + self._sync_s
        while self._waiting_rows > PATIENCE * MOST_ROWS and len(self._waiting) > 1:
            lost = len(self._waiting.pop(0))
            self._waiting_rows -= lost
            self.dropped += lost
        if self._waiting_rows >= MOST_ROWS:
            self.sync(now)

    def tick(self, now: Now) -> None:
        """Store what has waited for ``sync_s``.

        Raises:
            DataError: as :meth:`add`.
        """
        if self._due_s is not None and now.monotonic_s >= self._due_s:
            self.sync(now)

    def sync(self, now: Now) -> None:
        """Store all rows now.

        Raises:
            DataError: as :meth:`add`.
        """
        if not self._waiting:
            return
        self._due_s = now.monotonic_s + self._sync_s  # of the next attempt, should this one fail
        cells = Cells.join(self._waiting)
        try:
            for begin in range(0, len(cells), MOST_ROWS):
                self._append(encode_block(cells, begin, begin + MOST_ROWS))
                self._forget(min(MOST_ROWS, len(cells) - begin))
        except OSError as e:
            self.failing = True
            self._abandon()
            raise DataError(f"history {self.folder}: cannot be written: {reason(e)}") from e
        self.failing = False
        self._due_s = None

    def close(self, now: Now) -> None:
        """Store all rows and let go of the folder.

        Raises:
            DataError: the last rows could not be stored.
        """
        try:
            self.sync(now)
        finally:
            if self._file is not None:
                self._file.close()
            self._lock.close()

    def _forget(self, rows: int) -> None:
        """The oldest ``rows`` of those that wait are stored."""
        rest = Cells.join(self._waiting)
        left = Cells(rest.index[rows:], rest.values[rows:], rest.observed[rows:])
        self._waiting = [left] if len(left) else []
        self._waiting_rows = len(left)

    def _append(self, block: bytes) -> None:
        """One block, durable when this returns."""
        if self._file is None or self._size + len(block) > self._segment_bytes:
            self._begin_segment(len(block))
        self._make_room(len(block))
        assert self._file is not None
        self._write(block)

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        os.fsync(self._file.fileno())
        self._size += len(data)
        self._kept[Path(str(self._file.name))] = self._size
        self.written += len(data)
        self.syncs += 1

    def _begin_segment(self, room: int) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        header = self.layout.header()
        self._make_room(len(header) + room)
        number = max((int(path.stem) for path in self._kept), default=0) + 1
        path = self.folder / f"{number:08d}.seg"
        self._file = FileIO(path, "x")
        self._size = 0
        self._kept[path] = 0
        self._write(header)
        sync_folder(self.folder)  # else the new name may be lost with the power
        self.syncs += 1

    def _make_room(self, size: int) -> None:
        """Delete the oldest segments, but not the one that is written, until ``size`` fits."""
        current = None if self._file is None else Path(str(self._file.name))
        for path in sorted(self._kept):
            if self.size + size <= self._max_bytes or path == current:
                return
            path.unlink(missing_ok=True)
            del self._kept[path]

    def _continue_last(self) -> None:
        """Go on in the newest segment if it is of this layout; cut off what is not whole."""
        newest = max(self._kept, default=None)
        if newest is None:
            return
        layout, end, _ = scan(newest.read_bytes())
        if layout != self.layout:
            return
        if end < self._kept[newest]:
            log.warning(
                "%s: its last %d bytes were not stored completely and are cut off",
                newest, self._kept[newest] - end,
            )  # fmt: skip
        self._file = FileIO(newest, "r+")
        self._file.truncate(end)
        self._file.seek(end)
        self._size = self._kept[newest] = end

    def _abandon(self) -> None:
        """After a failed write: what stands behind the last whole block is cut off or left."""
        if self._file is None:
            return
        path = Path(str(self._file.name))
        try:
            self._file.truncate(self._size)
            self._file.seek(self._size)
        except OSError:
            log.debug("%s: its damaged end stays; readers leave it out", path)
        else:
            if self._size:
                return  # the same file is tried again
        self._file.close()
        self._file = None
        if not self._size:
            path.unlink(missing_ok=True)
            self._kept.pop(path, None)


def hold(folder: Path) -> TextIO:
    """The lock of ``folder``.

    Raises:
        ConfigError: it cannot be made, or another process records into it.
    """
    try:
        return lock(folder)
    except ConfigError as e:
        problem = "is written by another process" if folder.is_dir() else "cannot be made"
        raise ConfigError(f"history: {folder} {problem}") from e
