"""Cards and sticks: bundles that lie in a folder, taken without anybody at a keyboard.

Taken is the bundle of the highest counter, if that is above the active one's and the file was not
tried before: a stick that stays where it is must neither bring an old bundle back nor repeat a
failure for ever.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from edge_tsad.bundle import parse_bundle
from edge_tsad.errors import BundleError, EdgeTsadError
from edge_tsad.files import read_limited, reason
from firmware_bridge.device import Device
from firmware_bridge.protocol import CHUNK_BYTES

__all__ = ["INBOX", "Inbox"]

INBOX = "edge-tsad"
"""Name of the folder on a card or stick."""


class Offer(NamedTuple):
    """What a file has to offer."""

    counter: int
    transfer: str


class Inbox:
    """The folders named in ``agent.toml``; each is looked into as it is and below ``edge-tsad``."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._known: dict[tuple[str, int, int], Offer] = {}

    def scan(self) -> None:
        """Install the newest bundle; nothing while another is on trial.

        Raises:
            EdgeTsadError: a bundle was refused, or the stick was pulled; nothing was changed.
        """
        state = self.device.folder.load()
        if state.phase == "trial":
            return
        current = state.release(state.current)
        counter, problem = current.counter if current else -1, None
        offers: list[tuple[Offer, Path]] = []
        for file in self._files():
            try:
                offer = self._offer(file)
            except EdgeTsadError as e:
                problem = e
            else:
                if offer.counter > counter and not state.settled(offer.transfer):
                    offers.append((offer, file))
        if offers:
            self._install(max(offers)[1])
        if problem is not None:
            raise problem

    def _files(self) -> list[Path]:
        found: list[Path] = []
        for name in self.device.folder.settings().inbox:
            for folder in (Path(name), Path(name) / INBOX):
                try:
                    found += [f for f in folder.glob("*.tsad") if not f.name.startswith(".")]
                except OSError as e:
                    raise BundleError(f"{folder}: could not be read: {reason(e)}") from e
        return sorted(found)

    def _offer(self, file: Path) -> Offer:
        """What is in a file; one that has not changed is not read again."""
        try:
            stat = file.stat()
        except OSError as e:
            raise BundleError(f"{file}: could not be read: {reason(e)}") from e
        key = (str(file), stat.st_mtime_ns, stat.st_size)
        if key not in self._known:
            data = self._read(file)
            trusted = self.device.folder.trusted()
            bundle = parse_bundle(data, str(file), trusted=trusted)
            transfer = hashlib.sha256(data).hexdigest()
            self._known[key] = Offer(bundle.manifest.counter, transfer)
        return self._known[key]

    def _read(self, file: Path) -> bytes:
        return read_limited(file, int(self.device.folder.settings().max_mb * 1e6), BundleError)

    def _install(self, file: Path) -> None:
        device, data = self.device, self._read(file)
        transfer = hashlib.sha256(data).hexdigest()
        try:
            offset = device.offset(transfer, len(data))
            while offset < len(data):
                offset = device.receive(transfer, offset, data[offset : offset + CHUNK_BYTES])
            device.install(transfer)
        except EdgeTsadError as e:
            raise type(e)(f"{file}: {e}") from e
