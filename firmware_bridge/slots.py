"""A slot: one symbolic link into the store, switched by one atomic rename."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from edge_tsad.errors import BundleError
from edge_tsad.files import reason, sync_folder
from firmware_bridge.points import Witness, step, unwatched

__all__ = ["Slot"]


class Slot:
    """The link ``path`` to ``<store>/<digest>.tsad``; what the runtime opens.

    At any moment, whatever is cut off, the link is the old one or the new one.
    """

    def __init__(self, path: Path, store: Path, witness: Witness = unwatched) -> None:
        self.path = path
        self._store = store.name
        self._witness = witness

    def read(self) -> str:
        """The digest that it holds; empty where there is none.

        Raises:
            BundleError: something else lies there, or it cannot be read.
        """
        try:
            target = str(self.path.readlink())
        except FileNotFoundError:
            return ""
        except OSError as e:
            raise BundleError(f"{self.path}: is no slot of this program: {reason(e)}") from e
        found = re.fullmatch(re.escape(self._store) + r"/([0-9a-f]{64})\.tsad", target)
        if found is None:
            raise BundleError(f"{self.path}: is a link to elsewhere; remove it by hand")
        return found[1]

    def switch(self, digest: str) -> None:
        """Let it hold ``digest``, durably; an empty one removes it.

        Raises:
            BundleError: the file system refused; the slot is what it was.
        """
        temporary = self.path.with_name(f".{self.path.name}.new")
        try:
            with step(self._witness, f"{self.path.stem} slot"):
                if digest:
                    temporary.unlink(missing_ok=True)
                    temporary.symlink_to(f"{self._store}/{digest}.tsad")
                    os.replace(temporary, self.path)  # noqa: PTH105 - the atomic rename, by name
                else:
                    self.path.unlink(missing_ok=True)
                sync_folder(self.path.parent)
        except OSError as e:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise BundleError(f"{self.path}: could not be switched: {reason(e)}") from e
