"""What a power cut leaves: the files and names that were synced, and of the rest what it likes.

The model is POSIX's: a file's content is safe after ``fsync`` of it, the names in a folder after
``fsync`` of the folder. Nothing else is, in whatever order it was done.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from unittest import mock

Loss = Literal["all", "contents", "names"]
"""What is lost of that which was not synced; the other half of it survives."""


class Platter:
    """Follows the syncs below ``root``; inode numbers must not be used twice (tmpfs does not)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int | str]] = {}
        self._fsync = os.fsync
        for path in (root, *root.rglob("*")):  # what was there before is safe
            handle = os.open(path, os.O_RDONLY)
            self._sync(handle)
            os.close(handle)

    @contextmanager
    def spinning(self) -> Iterator[None]:
        """Notes every sync of this process."""
        with mock.patch("os.fsync", self._sync):
            yield

    def image(self, target: Path, loss: Loss) -> Path:
        """Write what a power cut now would leave into the new folder ``target``."""
        self._folder(self.root, self.root.stat().st_ino, target, loss)
        return target

    def _sync(self, handle: int) -> None:
        self._fsync(handle)
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            self._names[found.st_ino] = names(Path(f"/proc/self/fd/{handle}").readlink())
        else:
            with Path(f"/proc/self/fd/{handle}").open("rb") as file:
                self._contents[found.st_ino] = file.read()

    def _folder(self, now: Path, inode: int, target: Path, loss: Loss) -> None:
        target.mkdir(parents=True)
        lost = loss in ("all", "names")
        kept = self._names.get(inode, {}) if lost else names(now)
        paths = {path.lstat().st_ino: path for path in self.root.rglob("*")}
        for name, entry in kept.items():
            if isinstance(entry, str):
                (target / name).symlink_to(entry)
            elif entry in self._names or (entry in paths and paths[entry].is_dir()):
                self._folder(paths.get(entry, now / name), entry, target / name, loss)
            elif loss == "names" and entry in paths:
                (target / name).write_bytes(paths[entry].read_bytes())
            else:
                (target / name).write_bytes(self._contents.get(entry, b""))


def names(folder: Path) -> dict[str, int | str]:
    """The inode, or the target of a link, of each name in a folder."""
    return {
        path.name: str(path.readlink()) if path.is_symlink() else path.stat().st_ino
        for path in folder.iterdir()
    }
