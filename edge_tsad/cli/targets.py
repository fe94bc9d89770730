"""Where a command may write: found out before the work and not after it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from edge_tsad.errors import ConfigError
from edge_tsad.files import reason

__all__ = ["check_target"]


def check_target(target: Path, inputs: Iterable[Path | None], option: str = "--out") -> None:
    """Make sure that ``target`` can be written and is none of ``inputs``.

    Raises:
        ConfigError: it is one of them, or its folder is missing or takes no file.
    """
    if not target.parent.is_dir():
        raise ConfigError(f"{option}: the folder {target.parent} does not exist; make it first")
    if target.is_dir():
        raise ConfigError(f"{option}: {target} is a folder; give a file")
    for path in inputs:
        if path is not None and path.exists() and target.exists() and target.samefile(path):
            raise ConfigError(f"{option}: {target} is read by this command; give another file")
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}."):
            pass
    except OSError as error:
        raise ConfigError(
            f"{option}: {target} cannot be written: {reason(error)}; give another place"
        ) from error
