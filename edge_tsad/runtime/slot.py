"""Bundles that are opened through a slot of the update agent, and the slot beside it.

A slot is a link ``<folder>/active.tsad`` to ``store/<digest>.tsad`` in the agent's folder, which
also holds ``trusted.json``. The runtime only reads there, but for its report on a candidate.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edge_tsad.bundle import Bundle, open_bundle
from edge_tsad.errors import BundleError, SignatureError
from edge_tsad.files import read_limited
from edge_tsad.signing import TrustedKeys

__all__ = ["Seen", "look", "open_served", "trial_of"]

TARGET = re.compile(r"store/([0-9a-f]{64})\.tsad")
KEYS_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Seen:
    """What a slot holds; ``made`` differs when the same bundle is put there anew."""

    digest: str
    made: tuple[int, int]


def look(path: Path) -> Seen | None:
    """What is in the slot ``path``; None where it is none or empty."""
    try:
        target, stat = str(path.readlink()), path.lstat()
    except OSError:
        return None
    found = TARGET.fullmatch(target)
    return Seen(found[1], (stat.st_ino, stat.st_mtime_ns)) if found else None


def trial_of(active: Path) -> Path:
    """Where the candidate beside the slot ``active`` is, if there is one."""
    return active.with_name("trial.tsad")


def open_served(path: Path) -> Bundle:
    """The bundle at ``path``; in a slot it must be the one that the link names, signed and trusted.

    Raises:
        BundleError: it cannot be read, is damaged or is another one.
        SignatureError: it lies in a slot and no trusted key signed it.
    """
    seen = look(path)
    if seen is None:
        return open_bundle(path)
    document = read_limited(path.with_name("trusted.json"), KEYS_BYTES, SignatureError)
    bundle = open_bundle(path, trusted=TrustedKeys.first(document))
    if bundle.digest != seen.digest and look(path) == seen:  # else it was switched meanwhile
        raise BundleError(f"{path}: the file is another bundle than its name says")
    return bundle
