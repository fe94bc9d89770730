"""One process per data folder."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import TextIO

from edge_tsad.errors import ConfigError
from edge_tsad.files import make_folder, reason

__all__ = ["lock"]


def lock(folder: Path) -> TextIO:
    """Hold ``folder`` for this process until the returned file is closed.

    Raises:
        ConfigError: it cannot be made, or another process runs on it.
    """
    try:
        make_folder(folder)
        file = (folder / "lock").open("w")
    except OSError as e:
        raise ConfigError(f"data_dir: {folder} cannot be used: {reason(e)}") from e
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        file.close()
        raise ConfigError(
            f"data_dir: {folder} is in use by another run of this site and device"
        ) from e
    return file
