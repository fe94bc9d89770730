"""Onto a mounted card or stick: the agent of the gateway takes it from there (its inbox)."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from edge_tsad.errors import TransportError
from edge_tsad.files import reason, sync_folder
from firmware_bridge.inbox import INBOX
from firmware_bridge.protocol import CHUNK_BYTES

__all__ = ["write_to_directory"]


def write_to_directory(mount: Path, filename: str, data: bytes) -> Iterator[int]:
    """Write a bundle below ``mount/edge-tsad``; yields each offset once it is on the medium.

    What an earlier attempt wrote is gone on from. The file has its name only when all of it was
    read back, so a stick that was pulled half-way holds no bundle.

    Raises:
        TransportError: there is no such folder, it cannot be written, or reads back otherwise.
    """
    if not mount.is_dir():
        raise TransportError(f"{mount}: is no folder; is the card or stick mounted?")
    folder = mount / INBOX
    part, target = folder / f".{filename}.part", folder / filename
    try:
        folder.mkdir(exist_ok=True)
        offset = matching(part, data)
        yield offset
        with part.open("r+b" if offset else "wb") as file:
            file.truncate(offset)
            file.seek(offset)
            while offset < len(data):
                file.write(data[offset : offset + CHUNK_BYTES])
                file.flush()
                os.fsync(file.fileno())
                offset = min(offset + CHUNK_BYTES, len(data))
                yield offset
        if hashlib.sha256(part.read_bytes()).digest() != hashlib.sha256(data).digest():
            raise TransportError(f"{part}: reads back otherwise than written; is the card worn?")
        part.replace(target)
        sync_folder(folder)
    except OSError as e:
        raise TransportError(f"{folder}: could not be written to: {reason(e)}") from e


def matching(part: Path, data: bytes) -> int:
    """How much of ``data`` an earlier attempt has written."""
    with contextlib.suppress(OSError):
        written = part.read_bytes()
        if data.startswith(written):
            return len(written)
    return 0
