"""Reading within a bound and writing whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from edge_tsad.errors import EdgeTsadError

__all__ = ["read_limited", "reason", "sweep", "write_atomically"]

PART = ".part"


def read_limited(path: Path, limit: int, error: type[EdgeTsadError]) -> bytes:
    """The bytes of a regular file of at most ``limit`` bytes.

    Raises:
        EdgeTsadError: as ``error``: it is missing, unreadable, no regular file, or larger.
    """
    try:
        if not path.is_file():  # a pipe would block, a device would never end
            raise error(f"{path}: {'is no regular file' if path.exists() else 'does not exist'}")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as e:  # ValueError: a NUL in the path
        raise error(f"{path}: could not be read: {reason(e)}") from e
    if len(data) > limit:
        raise error(f"{path}: is larger than the {limit:,} bytes allowed for such a file")
    return data


def write_atomically(
    path: Path, data: bytes, error: type[EdgeTsadError], *, mode: int = 0o644
) -> None:
    """Make ``path`` hold ``data``, durably, or leave what was there untouched.

    A temporary file in the same folder is written, synced and renamed, then the folder is synced.

    Raises:
        EdgeTsadError: as ``error``: it could not be written (no space, no right, no such folder).
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PART, dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        temporary = None
        sync_folder(path.parent)
    except (OSError, ValueError) as e:
        raise error(f"{path}: could not be written: {reason(e)}; nothing was changed") from e
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def sweep(folder: Path) -> int:
    """Delete what writers that were killed have left in ``folder``; returns how many files.

    To be called by whoever holds the folder against other writers. What cannot be deleted stays.
    """
    swept = 0
    for path in folder.glob(f".*{PART}"):
        with contextlib.suppress(OSError):
            path.unlink()
            swept += 1
    return swept


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are missing, durably.

    Raises:
        OSError: it cannot be made.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        sync_folder(each.parent)  # else all that is put into it may be lost with the power


def sync_folder(folder: Path) -> None:
    """Make renames within ``folder`` durable.

    Raises:
        OSError: the storage failed. A file system that cannot sync folders is no failure.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def reason(e: Exception) -> str:
    """Why the operating system refused, in words."""
    if isinstance(e, OSError) and e.errno == errno.ENOSPC:
        return "no space is left on the device"
    text = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
    return text[:1].lower() + text[1:]
