"""What a gateway takes in before any of it counts: pieces of files, manifests, trusted keys."""

from __future__ import annotations

import contextlib

from edge_tsad.bundle import Manifest
from edge_tsad.errors import BundleError, SignatureError
from edge_tsad.signing import KeySet, TrustedKeys
from firmware_bridge.acceptance import require_fit
from firmware_bridge.folder import Folder
from firmware_bridge.machine import State
from firmware_bridge.settings import Settings

__all__ = ["Reception"]


class Reception:
    """The side of a gateway that changes neither its state nor its slots."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def offset(self, transfer: str, size: int) -> int:
        """Where to go on with a file of ``size`` bytes.

        Raises:
            EdgeTsadError: it is too large, there is no space, or the folder cannot be written to.
        """
        room = self.folder.settings().room
        with self.folder.lock():
            return self.folder.incoming.begin(transfer, size, room)

    def receive(self, transfer: str, offset: int, data: bytes) -> int:
        """Take the next piece; returns the confirmed offset.

        Raises:
            EdgeTsadError: it does not follow on what is there, is too large, or cannot be written.
        """
        if offset + len(data) > self.folder.settings().room.limit:
            raise BundleError("the bundle is larger than was announced")
        with self.folder.lock():
            return self.folder.incoming.append(transfer, offset, data)

    def check(self, manifest: bytes, signature: bytes | None, size: int) -> Manifest:
        """Whether a bundle with this manifest would be accepted; changes nothing.

        Raises:
            EdgeTsadError: it would not be.
        """
        self.folder.trusted().verify(manifest, signature)
        candidate = Manifest.from_json(manifest)
        settings, state = self.folder.settings(), self.folder.load()
        self._require_fit(candidate, settings, state)
        self.folder.prepare()
        self.folder.incoming.require_room(size, settings.room)
        return candidate

    def trust(self, document: bytes) -> KeySet:
        """Take a later set of trusted keys; returns the one that is held then.

        Raises:
            SignatureError: it is older, or not signed by both a key held here and one of its own,
                or none of its keys signed the bundle that serves.
            EdgeTsadError: there is no first set yet, or the folder cannot be written to.
        """
        with self.folder.lock():
            held = self.folder.trusted()
            changed = held.update(document)
            if changed is not held:
                self._require_signed(changed)
                self.folder.save_keys(document)
            return changed.keys

    def _require_signed(self, keys: TrustedKeys) -> None:
        """Refuse keys under which the runtime would not open what serves."""
        state = self.folder.load()
        release = state.release(state.serving)
        if release is None:
            return
        try:
            self.folder.store.open(release.digest, keys)
        except SignatureError as e:
            raise SignatureError(
                f"none of these keys signed {release.label}, which serves; first trust old and new "
                "keys, flash a bundle that a new one signed, then leave the old ones out"
            ) from e

    def _require_fit(self, candidate: Manifest, settings: Settings, state: State) -> None:
        current = None
        if state.current:
            with contextlib.suppress(BundleError):  # a damaged one can no longer be asked
                current = self.folder.store.open(state.current).manifest
        require_fit(candidate, settings, state.floor, current)
