"""Bringing a bundle to gateways: upload by confirmed offsets, install, and what came of it."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_tsad.bundle import DEFAULT_LIMITS, Bundle, parse_bundle
from edge_tsad.errors import BundleError, EdgeTsadError, TransportError
from edge_tsad.files import read_limited
from firmware_bridge.protocol import CHUNK_BYTES, pack_bytes
from firmware_bridge.report import StatusReport
from firmware_bridge.transports.base import LineCutError, Session, Transport

__all__ = ["Connection", "Order", "Payload", "Result", "flash", "flash_all", "upload"]

ATTEMPTS = 5
PAUSE_S = 1.0
MOST_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Payload:
    """A bundle as it travels; ``transfer`` is the SHA-256 of the file."""

    bundle: Bundle
    data: bytes
    transfer: str

    @classmethod
    def load(cls, path: Path) -> Payload:
        """The bundle at ``path``.

        Raises:
            BundleError: it cannot be read, is no bundle or is damaged.
        """
        data = read_limited(path, DEFAULT_LIMITS.total_bytes, BundleError)
        return cls(parse_bundle(data, str(path)), data, hashlib.sha256(data).hexdigest())

    @property
    def label(self) -> str:
        """Name and version."""
        return f"{self.bundle.manifest.name}-{self.bundle.manifest.version}"


@dataclass(frozen=True, slots=True)
class Order:
    """What to do with a bundle; ``trial_s`` None leaves the span to the gateway.

    ``keys`` is a document of trusted keys that the gateway is given first.
    """

    trial_s: float | None = None
    keys: bytes | None = None
    confirm: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it at one gateway; ``good`` is whether it did what it was asked."""

    gateway: str
    text: str
    good: bool
    status: StatusReport | None = None


class Connection:
    """Sessions with one gateway: the next request after a cut line opens a new one."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self._session: Session | None = None

    def request(self, name: str, **fields: Any) -> dict[str, Any]:
        """Ask and wait for the answer.

        Raises:
            LineCutError: the line was cut.
            EdgeTsadError: the gateway cannot be reached or refused.
        """
        if self._session is None:
            self._session = self.transport.open()
        try:
            return self._session.request(name, **fields)
        except LineCutError:
            self.close()
            raise

    def insist(self, name: str, **fields: Any) -> dict[str, Any]:
        """As :meth:`request`, again over new lines; for requests that do no harm when repeated."""
        for attempt in range(ATTEMPTS):
            with contextlib.suppress(LineCutError):
                return self.request(name, **fields)
            time.sleep(PAUSE_S * attempt)
        return self.request(name, **fields)

    def close(self) -> None:
        """End the session, if there is one."""
        if self._session is not None:
            self._session.close()
            self._session = None


def upload(connection: Connection, payload: Payload, pause_s: float = PAUSE_S) -> Iterator[int]:
    """Send the file; yields every offset that the gateway has confirmed as written.

    After a cut line it goes on from what the gateway has. Attempts that bring nothing are counted,
    those that do are not.

    Raises:
        LineCutError: the line stays cut.
        EdgeTsadError: the gateway refused the file.
    """
    transfer, data = payload.transfer, payload.data
    failures, best = 0, -1
    while True:
        try:
            reply = connection.request("offset", transfer=transfer, size=len(data))
            here = confirmed(reply, 0, len(data), connection)
            yield here
            while here < len(data):
                piece = data[here : here + CHUNK_BYTES]
                reply = connection.request(
                    "receive", transfer=transfer, offset=here, data=pack_bytes(piece)
                )
                here = confirmed(reply, here + 1, len(data), connection)
                if here > best:
                    best, failures = here, 0
                yield here
        except LineCutError:
            failures += 1
            if failures >= ATTEMPTS:
                raise
            time.sleep(pause_s * failures)
        else:
            return


def confirmed(reply: dict[str, Any], least: int, most: int, connection: Connection) -> int:
    """The offset in a reply.

    Raises:
        TransportError: it is none that can follow.
    """
    offset = reply.get("offset")
    if not isinstance(offset, int) or not least <= offset <= most:
        raise TransportError(f"{connection.transport.name}: confirmed an offset that is none")
    return offset


def flash(
    transport: Transport, payload: Payload, order: Order, progress: Callable[[str, int], None]
) -> Result:
    """Bring a bundle to one gateway; what goes wrong is in the result.

    ``progress`` is called with the gateway's name and each confirmed offset.
    """
    connection = Connection(transport)
    try:
        if order.dry_run:
            return dry_run(connection, payload)
        if order.keys is not None:
            connection.insist("trust", document=pack_bytes(order.keys))
        for offset in upload(connection, payload):
            progress(transport.name, offset)
        table = connection.insist("install", transfer=payload.transfer, trial_s=order.trial_s)
        status = StatusReport.read(table, transport.name)
        if order.confirm and status.phase == "trial":
            table = connection.insist("confirm", digest=payload.bundle.digest)
            status = StatusReport.read(table, transport.name)
        return outcome(transport.name, payload, status)
    except EdgeTsadError as e:
        return Result(transport.name, str(e).removeprefix(f"{transport.name}: "), False)
    finally:
        connection.close()


def dry_run(connection: Connection, payload: Payload) -> Result:
    """Ask whether it would be accepted; nothing is sent but its manifest and signature."""
    bundle = payload.bundle
    connection.insist(
        "check",
        manifest=pack_bytes(bundle.manifest_bytes),
        signature=None if bundle.signature is None else pack_bytes(bundle.signature),
        size=len(payload.data),
    )
    text = f"{payload.label} would be accepted; nothing was sent"
    return Result(connection.transport.name, text, True)


def outcome(gateway: str, payload: Payload, status: StatusReport) -> Result:
    """What came of it, by what the gateway says that it serves."""
    active, candidate, last = status.active, status.candidate, status.last
    if candidate is not None and candidate.digest == payload.bundle.digest:
        beside = active.label if active else "no bundle"
        text = (
            f"{payload.label} is on trial beside {beside} for {status.trial_remaining_s or 0:.0f} "
            "s; then it takes its place, unless it fails"
        )
        return Result(gateway, text, True, status)
    if active is None or active.digest != payload.bundle.digest:
        reason = last.reason if last else status.problem
        return Result(gateway, f"{payload.label} is not active: {reason}", False, status)
    if status.problem:
        return Result(gateway, f"{payload.label} is active, but {status.problem}", False, status)
    return Result(gateway, f"{payload.label} is active and committed", True, status)


def flash_all(
    transports: Sequence[Transport],
    payload: Payload,
    order: Order,
    progress: Callable[[str, int], None],
) -> list[Result]:
    """Bring a bundle to several gateways at once; the results are in their order."""
    with ThreadPoolExecutor(min(len(transports), MOST_AT_ONCE)) as pool:
        return list(pool.map(lambda one: flash(one, payload, order, progress), transports))
