"""Bundles by their digest, and files on their way in.

A file arrives in ``incoming/`` piece by piece under the SHA-256 of the whole, and moves into
``store/`` by one rename once it is verified. What is in the store under a digest is checked against
it whenever it is opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from pathlib import Path

from edge_tsad.bundle import DEFAULT_LIMITS, Bundle, Verifier, open_bundle
from edge_tsad.errors import BundleError
from edge_tsad.files import read_limited, reason, sync_folder
from firmware_bridge.points import Witness, step, unwatched
from firmware_bridge.settings import Room

__all__ = ["Incoming", "Store", "require_transfer"]

HEX64 = re.compile(r"[0-9a-f]{64}")


def require_transfer(transfer: str) -> None:
    """Refuse what is no SHA-256: it becomes the name of a file.

    Raises:
        BundleError: it is none.
    """
    if not HEX64.fullmatch(transfer):
        raise BundleError("transfer: is no SHA-256 of 64 hexadecimal digits")


def require_size(size: int, limit: int) -> None:
    """Refuse a file larger than ``limit``, or than any bundle may be.

    Raises:
        BundleError: it is.
    """
    allowed = min(limit, DEFAULT_LIMITS.total_bytes)
    if size > allowed:
        raise BundleError(f"the bundle is too large: {size:,} bytes; {allowed:,} are allowed")


class Store:
    """The folder of whole bundles."""

    def __init__(self, folder: Path, witness: Witness = unwatched) -> None:
        self.folder = folder
        self._witness = witness

    def path(self, digest: str) -> Path:
        """Where the bundle of a digest is, if it is there."""
        return self.folder / f"{digest}.tsad"

    def adopt(self, file: Path, digest: str) -> None:
        """Move ``file``, which was verified and synced, to its place.

        Raises:
            BundleError: the file system refused.
        """
        try:
            with step(self._witness, "store"):
                file.chmod(0o644)  # the runtime, another user, reads it
                file.replace(self.path(digest))
                sync_folder(self.folder)
                sync_folder(file.parent)
        except OSError as e:
            raise BundleError(f"the bundle could not be stored: {reason(e)}") from e

    def open(self, digest: str, trusted: Verifier | None = None) -> Bundle:
        """The bundle of a digest, checked against it.

        Raises:
            BundleError: it is not there, or damaged.
            SignatureError: ``trusted`` is given and does not accept it.
        """
        bundle = open_bundle(self.path(digest), trusted=trusted)
        if bundle.digest != digest:
            raise BundleError(f"{bundle.where}: is another bundle than its name says")
        return bundle

    def sound(self, digest: str) -> bool:
        """Whether the bundle of a digest is there, whole and unaltered."""
        try:
            self.open(digest)
        except BundleError:
            return False
        return True

    def sweep(self, keep: set[str]) -> None:
        """Remove what is not among ``keep``; what cannot be removed stays until the next time."""
        with contextlib.suppress(OSError):
            for file in self.folder.iterdir():
                if file.name.removesuffix(".tsad") not in keep:
                    file.unlink()


class Incoming:
    """The folder of files on their way in; one at a time is kept."""

    def __init__(self, folder: Path, witness: Witness = unwatched) -> None:
        self.folder = folder
        self._witness = witness

    def path(self, transfer: str) -> Path:
        """Where the bytes that have come so far are."""
        require_transfer(transfer)
        return self.folder / f"{transfer}.part"

    def offset(self, transfer: str) -> int:
        """How many bytes are there."""
        try:
            return self.path(transfer).stat().st_size
        except OSError:
            return 0

    def begin(self, transfer: str, size: int, room: Room) -> int:
        """Make room for a file of ``size`` bytes; returns the offset to go on from.

        Raises:
            BundleError: it is larger than ``room`` allows, or there is no space for it.
        """
        path = self.path(transfer)
        require_size(size, room.limit)
        try:
            for file in self.folder.iterdir():
                if file != path:
                    file.unlink()
            if self.offset(transfer) > size:
                path.unlink()
            path.touch()  # the only one that may grow now
        except OSError as e:
            raise BundleError(f"{self.folder}: cannot be used: {reason(e)}") from e
        self.require_room(size, room, self.offset(transfer))
        return self.offset(transfer)

    def require_room(self, size: int, room: Room, here: int = 0) -> None:
        """Refuse a file that is too large, or of which the rest after ``here`` has no space.

        Raises:
            BundleError: it is larger than ``room`` allows, or there is no space for it.
        """
        require_size(size, room.limit)
        try:
            free = shutil.disk_usage(self.folder).free
        except OSError as e:
            raise BundleError(f"{self.folder}: cannot be used: {reason(e)}") from e
        needed = size - here + room.reserve
        if free < needed:
            raise BundleError(
                f"no space is left on the gateway: {needed:,} bytes are needed, {free:,} are free"
            )

    def append(self, transfer: str, offset: int, data: bytes) -> int:
        """Add ``data`` at ``offset``, durably; returns the offset that is confirmed by it.

        Raises:
            BundleError: other bytes have come meanwhile, or the file system refused.
        """
        path, here = self.path(transfer), self.offset(transfer)
        if not path.exists():
            raise BundleError("the transfer was not begun, or another one took its place")
        if offset != here:
            raise BundleError(
                f"the gateway has {here:,} bytes and not {offset:,}; is another transfer under way?"
            )
        try:
            with step(self._witness, "upload"), path.open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if offset == 0:
                sync_folder(self.folder)
        except OSError as e:
            with contextlib.suppress(OSError):
                os.truncate(path, offset)
            raise BundleError(f"the bundle could not be received: {reason(e)}") from e
        return self.offset(transfer)

    def whole(self, transfer: str) -> bytes:
        """The bytes of a file that is complete.

        Raises:
            BundleError: it is cut short or was altered; it is dropped and must be sent again.
        """
        data = read_limited(self.path(transfer), DEFAULT_LIMITS.total_bytes, BundleError)
        if hashlib.sha256(data).hexdigest() != transfer:
            raise BundleError(
                f"the bundle is cut short or was altered on its way: its {len(data):,} bytes do "
                "not have the SHA-256 that was announced"
            )
        return data

    def discard(self, transfer: str) -> None:
        """Drop what has come of a file."""
        with contextlib.suppress(OSError):
            self.path(transfer).unlink(missing_ok=True)
