"""What may be asked of a gateway over MQTT, decoded strictly, and how it answers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from edge_tsad.broker import CommandName
from edge_tsad.decode import decode, parse_json
from edge_tsad.errors import DataError
from edge_tsad.runtime import payload
from edge_tsad.runtime.standing import LONGEST_SILENCE_S

__all__ = [
    "LARGEST_REQUEST",
    "REQUESTS",
    "Ack",
    "Answer",
    "Label",
    "Replay",
    "Request",
    "Sensitivity",
    "Silenced",
    "read",
]

LARGEST_REQUEST = 4096
LONGEST_NOTE = 500
LONGEST_TOKEN = 64
TOKEN = re.compile(r"[\x20-\x7e]*")


def check_token(text: str) -> None:
    """Refuse a request's own name that is too long or not printable ASCII."""
    if len(text) > LONGEST_TOKEN or not TOKEN.fullmatch(text):
        raise DataError(f"request: is no text of at most {LONGEST_TOKEN} printable characters")


@dataclass(frozen=True, slots=True)
class Ack:
    """A person has seen the open alert of ``stream``; if ``id`` is given, only that one."""

    stream: str
    id: str = ""
    request: str = ""

    def __post_init__(self) -> None:
        check_token(self.request)


@dataclass(frozen=True, slots=True)
class Silenced:
    """Send no alerts of ``stream`` for ``for_s`` seconds from now; 0 ends a silence."""

    stream: str
    for_s: float
    request: str = ""

    def __post_init__(self) -> None:
        check_token(self.request)
        if not 0 <= self.for_s <= LONGEST_SILENCE_S:
            raise DataError(
                f"for_s: {self.for_s:g} is not in 0…{LONGEST_SILENCE_S:g}; a silence lasts a day "
                "at most"
            )


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Judge ``stream`` by another sensitivity; null: by that of the configuration."""

    stream: str
    value: float | None
    request: str = ""

    def __post_init__(self) -> None:
        check_token(self.request)


@dataclass(frozen=True, slots=True)
class Label:
    """Whether the alert ``id`` of ``stream`` was one, for the next training."""

    stream: str
    id: str
    label: Literal["anomaly", "normal"]
    note: str = ""
    request: str = ""

    def __post_init__(self) -> None:
        check_token(self.request)
        if not re.fullmatch(r"[0-9a-f]{16}", self.id):
            raise DataError("id: is not the id of an alert (16 hexadecimal digits)")
        if len(self.note) > LONGEST_NOTE:
            raise DataError(f"note: is longer than {LONGEST_NOTE} characters")


@dataclass(frozen=True, slots=True)
class Replay:
    """Send the alerts with numbers from ``from_seq`` to ``to_seq`` (null: the newest) once more.

    A request that names an ``epoch`` is refused by a gateway whose numbers are of another one.
    """

    from_seq: int
    to_seq: int | None = None
    epoch: str = ""
    request: str = ""

    def __post_init__(self) -> None:
        check_token(self.request)
        if self.from_seq < 1:
            raise DataError(f"from_seq: {self.from_seq} is not positive")
        if self.to_seq is not None and self.to_seq < self.from_seq:
            raise DataError(f"to_seq: {self.to_seq} is less than from_seq")


Request: TypeAlias = Ack | Silenced | Sensitivity | Label | Replay
REQUESTS: dict[str, type[Request]] = {
    "ack": Ack,
    "silence": Silenced,
    "sensitivity": Sensitivity,
    "label": Label,
    "replay": Replay,
}
assert tuple(REQUESTS) == get_args(CommandName)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request.

    ``request`` is the requester's own name for it, null where it had none that could be read.
    ``reason`` says why it was refused; where ``ok``, ``result`` says what is now the case.
    """

    command: str
    request: str | None
    ok: bool
    reason: str = ""
    result: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """As JSON."""
        return payload.pack(
            {
                "command": self.command,
                "request": self.request,
                "ok": self.ok,
                "reason": self.reason,
                "result": self.result,
            }
        )


def read(command: str, data: bytes) -> Request:
    """The request in a payload.

    Raises:
        DataError: it is too large, no JSON, or not exactly what the command takes.
    """
    if len(data) > LARGEST_REQUEST:
        raise DataError(f"is larger than {LARGEST_REQUEST} bytes")
    table = parse_json(data, "it", DataError)
    if not isinstance(table, dict):
        raise DataError("is no JSON object")
    return decode(REQUESTS[command], table, "", DataError)


def name_of(data: bytes) -> str | None:
    """The requester's name for a request that may be wrong in other ways."""
    if len(data) > LARGEST_REQUEST:
        return None
    try:
        name = parse_json(data, "it", DataError)["request"]
        check_token(name)
    except (DataError, KeyError, TypeError):
        return None
    return str(name)
