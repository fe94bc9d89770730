"""What the agent owns on disk.

::

    trusted.json   keys that may sign (put there by the gateway's owner)
    agent.toml     settings (optional)
    state.json     phase, floor, committed bundles, history: one atomic write for each transition
    active.tsad    link into store/: the slot, which the runtime opens
    trial.tsad     link into store/: the candidate, which the runtime scores beside it
    reports/       what the runtime says of the candidate; its group may write here
    store/         bundles by digest
    incoming/      files on their way in
    lock           held by whoever changes any of this
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_tsad.errors import BundleError, ConfigError, SignatureError, TransportError
from edge_tsad.files import read_limited, reason, write_atomically
from edge_tsad.runtime.trial_report import REPORT, REPORT_BYTES, TrialReport
from edge_tsad.signing import TrustedKeys
from firmware_bridge.machine import State
from firmware_bridge.points import Witness, step, unwatched
from firmware_bridge.settings import Settings, load_settings
from firmware_bridge.slots import Slot
from firmware_bridge.store import Incoming, Store

__all__ = ["Folder"]

STATE_BYTES = 4 << 20  # more than the longest history with the longest reasons
KEYS_BYTES = 64 << 10
PARTS = (".state.json.", ".active.tsad.", ".trial.tsad.", ".trusted.json.")
LOCK_WAIT_S = 20.0


class Folder:
    """The folder of one slot; see the module."""

    def __init__(self, root: Path, witness: Witness = unwatched) -> None:
        self.root = root
        self._witness = witness
        self.store = Store(root / "store", witness)
        self.incoming = Incoming(root / "incoming", witness)
        self.slot = Slot(root / "active.tsad", self.store.folder, witness)
        self.trial_slot = Slot(root / "trial.tsad", self.store.folder, witness)

    def prepare(self) -> None:
        """Make what is missing of the folders.

        Raises:
            ConfigError: they cannot be made.
        """
        try:
            for folder in (self.root, self.store.folder, self.incoming.folder):
                folder.mkdir(parents=True, exist_ok=True)
            reports = (self.root / REPORT).parent
            if not reports.exists():
                reports.mkdir()
                reports.chmod(0o2775)  # the runtime, another user of this group, writes there
        except OSError as e:
            raise ConfigError(f"{self.root}: cannot be used: {reason(e)}") from e

    @contextmanager
    def lock(self, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
        """Be the only one who changes anything here.

        Raises:
            ConfigError: the folder cannot be used or written to.
            TransportError: another holds it for longer than ``wait_s``.
        """
        self.prepare()
        try:
            handle = os.open(self.root / "lock", os.O_RDONLY | os.O_CREAT, 0o600)
        except OSError as e:
            raise ConfigError(f"{self.root}: cannot be written to: {reason(e)}") from e
        if os.statvfs(handle).f_flag & os.ST_RDONLY:
            os.close(handle)
            raise ConfigError(f"{self.root}: cannot be written to: read-only file system")
        try:
            end_s = time.monotonic() + wait_s
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError as e:
                    if time.monotonic() >= end_s:
                        raise TransportError(
                            "the gateway is busy with another update; try again later"
                        ) from e
                time.sleep(0.05)
            yield
        finally:
            os.close(handle)

    def load(self) -> State:
        """The state as it was written last.

        Raises:
            BundleError: it is damaged, or missing although a bundle is active.
        """
        path = self.root / "state.json"
        if not path.exists():
            if self.slot.read():
                raise BundleError(
                    f"{path}: is missing although a bundle is active; the least counter accepted "
                    "is not known, so nothing can be installed"
                )
            return State()
        return State.read(read_limited(path, STATE_BYTES, BundleError), str(path))

    def save(self, state: State) -> None:
        """Write the state whole, durably.

        Raises:
            BundleError: the file system refused; the state is what it was.
        """
        event, data = state.history[-1].event if state.history else "first", state.to_json()
        State.read(data, "state.json")  # what could not be read again is not written
        with step(self._witness, f"record {event}"):
            write_atomically(self.root / "state.json", data, BundleError)

    def follow(self, state: State) -> None:
        """Let the slots hold what ``state`` says.

        Raises:
            BundleError: the file system refused; the slots are what they were.
        """
        if self.slot.read() != state.serving:
            self.slot.switch(state.serving)
        if self.trial_slot.read() != state.trying:
            self.trial_slot.switch(state.trying)

    def report(self, digest: str) -> TrialReport | None:
        """What the runtime says of the candidate of ``digest``; None where it says nothing.

        The file is another user's: whatever is wrong with it is no report.
        """
        try:
            report = TrialReport.read(read_limited(self.root / REPORT, REPORT_BYTES, BundleError))
        except BundleError:
            return None
        return report if report.candidate == digest else None

    def settings(self) -> Settings:
        """The settings; see :func:`load_settings`."""
        return load_settings(self.root / "agent.toml")

    def trusted(self) -> TrustedKeys:
        """The keys that may sign.

        Raises:
            SignatureError: there are none, or their file is damaged.
        """
        path = self.root / "trusted.json"
        if not path.exists():
            raise SignatureError(
                f"the gateway trusts no keys yet; put the set made by `edge-tsad keys trust` at "
                f"{path}"
            )
        return TrustedKeys.first(read_limited(path, KEYS_BYTES, SignatureError))

    def save_keys(self, document: bytes) -> None:
        """Write the trusted keys, durably.

        Raises:
            SignatureError: the file system refused; the keys are what they were.
        """
        with step(self._witness, "keys"):
            write_atomically(self.root / "trusted.json", document, SignatureError)

    def sweep(self, state: State) -> None:
        """Remove bundles that nobody needs and what an interrupted write left."""
        self.store.sweep(state.kept)
        with contextlib.suppress(OSError):
            for file in self.root.glob(".*"):
                if file.name.startswith(PARTS):
                    file.unlink()
