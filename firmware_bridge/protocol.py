"""What flasher and agent say to each other: one JSON object a line, a reply for each request.

The agent begins with ``{"agent": 1, "version": …}``. A request is ``{"request": name, …}``, its
reply ``{"ok": …}`` or ``{"error": sentence, "kind": class}``. Bytes travel as base64.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from edge_tsad import errors
from edge_tsad.decode import Json, canonical_json, parse_json, shorten
from edge_tsad.errors import BundleError, ConfigError, EdgeTsadError, TransportError

__all__ = [
    "CHUNK_BYTES",
    "LINE_BYTES",
    "PROTOCOL",
    "REQUESTS",
    "Alerts",
    "Check",
    "Confirm",
    "Files",
    "History",
    "Install",
    "Offset",
    "Read",
    "Receive",
    "Rollback",
    "Status",
    "Trust",
    "error_reply",
    "pack_bytes",
    "pack_line",
    "read_line",
    "unpack_bytes",
    "unpack_reply",
]

PROTOCOL = 1
LINE_BYTES = 4 << 20  # a manifest of the largest size fits in
CHUNK_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Offset:
    """How many bytes of a file have come? ``transfer`` is its SHA-256 in hexadecimal."""

    transfer: str
    size: int


@dataclass(frozen=True, slots=True)
class Receive:
    """The next bytes of a file, in base64."""

    transfer: str
    offset: int
    data: str


@dataclass(frozen=True, slots=True)
class Check:
    """Would a bundle with this manifest and signature (base64) be accepted?"""

    manifest: str
    signature: str | None
    size: int


@dataclass(frozen=True, slots=True)
class Trust:
    """Take a later set of trusted keys (the document in base64)."""

    document: str


@dataclass(frozen=True, slots=True)
class Install:
    """Verify, stage and self-test a file that has come, and begin its trial."""

    transfer: str
    trial_s: float | None = None

    def __post_init__(self) -> None:
        if self.trial_s is not None and not 1 <= self.trial_s <= 30 * 86_400:
            raise ConfigError(f"trial_s: {self.trial_s} is not between a second and 30 days")


@dataclass(frozen=True, slots=True)
class Confirm:
    """Commit the bundle on trial; ``digest``, where given, must be its."""

    digest: str = ""


@dataclass(frozen=True, slots=True)
class Rollback:
    """Return to an earlier bundle; ``to`` is a version or the beginning of a digest."""

    to: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """Which bundle serves?"""


@dataclass(frozen=True, slots=True)
class History:
    """What happened; the last ``limit`` entries."""

    limit: int = 50


@dataclass(frozen=True, slots=True)
class Files:
    """Which files of history has the runtime recorded?"""


@dataclass(frozen=True, slots=True)
class Read:
    """A piece of such a file, in base64."""

    path: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Alerts:
    """Messages of alerts with a sequence number above ``after``, as far as they are kept."""

    after: int = 0


REQUESTS: dict[str, type] = {
    "offset": Offset,
    "receive": Receive,
    "check": Check,
    "trust": Trust,
    "install": Install,
    "confirm": Confirm,
    "rollback": Rollback,
    "status": Status,
    "history": History,
    "files": Files,
    "read": Read,
    "alerts": Alerts,
}


def pack_line(table: Json) -> bytes:
    """A line to send."""
    return canonical_json(table)


def read_line(line: bytes, where: str) -> dict[str, Any]:
    """The table in a line.

    Raises:
        BundleError: it holds none.
    """
    table = parse_json(line, where, BundleError)
    if not isinstance(table, dict):
        raise BundleError(f"{where}: is no table")
    return table


def pack_bytes(data: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(data).decode("ascii")


def unpack_bytes(text: str, where: str) -> bytes:
    """Text as bytes.

    Raises:
        BundleError: it is no base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as e:
        raise BundleError(f"{where}: is no base64") from e


def error_reply(error: EdgeTsadError) -> Json:
    """The reply to a request that was refused."""
    return {"error": str(error), "kind": type(error).__name__}


def unpack_reply(line: bytes, gateway: str) -> dict[str, Any]:
    """What a reply holds under ``ok``.

    Raises:
        EdgeTsadError: the gateway refused (of the class that it names), or said nothing known.
    """
    try:
        table = json.loads(line)
        if "error" in table:
            kind = getattr(errors, str(table.get("kind")), TransportError)
            if not (isinstance(kind, type) and issubclass(kind, EdgeTsadError)):
                kind = TransportError
            raise kind(f"{gateway}: {printable(str(table['error']))}")
        return dict(table["ok"])
    except (ValueError, TypeError, KeyError) as e:
        text = shorten(line.decode("latin-1"), 80)
        raise TransportError(f"{gateway}: gave an answer that is none: {text}") from e


def printable(text: str) -> str:
    """A gateway's sentence without anything that could command a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:2000]
