"""Arrays and a little JSON as bytes: snapshots of streams, without pickles."""

from __future__ import annotations

import io
import json
import logging
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_tsad.errors import DataError, EdgeTsadError
from edge_tsad.files import read_limited, write_atomically

__all__ = ["Saved", "load", "read_state", "save", "without_prefix"]

log = logging.getLogger(__name__)

FACTS = "facts"
LARGEST_FILE = 1 << 30


@dataclass(frozen=True, slots=True)
class Saved:
    """What was saved: JSON ``facts`` and arrays."""

    facts: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]

    def to_bytes(self) -> bytes:
        """As an uncompressed npz file."""
        buffer = io.BytesIO()
        text = json.dumps(self.facts, allow_nan=False).encode()
        arrays: Mapping[str, Any] = {**self.arrays, FACTS: np.frombuffer(text, np.uint8)}
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Saved:
        """The opposite of :meth:`to_bytes`.

        Raises:
            DataError: the bytes are damaged.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            facts = json.loads(arrays.pop(FACTS).tobytes())
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as e:
            raise DataError(f"saved state: is damaged: {e}") from e
        if not isinstance(facts, dict):
            raise DataError("saved state: is damaged: its facts are no table")
        return cls(facts, arrays)


def save(path: Path, saved: Saved) -> int:
    """Write a snapshot, whole and synced or not at all; returns its bytes.

    Raises:
        EdgeTsadError: it cannot be written; the one before stays.
    """
    data = saved.to_bytes()
    write_atomically(path, data, DataError)
    return len(data)


def load(path: Path) -> Saved | None:
    """The snapshot in ``path``; None where there is none, or, said in the log, a damaged one."""
    if not path.exists():
        return None
    try:
        return Saved.from_bytes(read_limited(path, LARGEST_FILE, DataError))
    except EdgeTsadError as e:
        log.warning("%s is not used: %s; the stream starts afresh", path, e)
        return None


def read_state(data: bytes | None, stream: str) -> Saved | None:
    """What the outbox keeps of a stream's alert; None where it keeps none, or a damaged one."""
    try:
        return None if data is None else Saved.from_bytes(data)
    except DataError as e:
        log.warning("%s: the state of its alert is not used: %s", stream, e)
        return None


def without_prefix(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Those arrays whose names begin with ``prefix``, by the rest of their names."""
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
