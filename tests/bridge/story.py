"""Everything that a gateway goes through, and what must serve after each part of it."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bridge.releases import HandClock, bring, device, prepare, release, stand_trial

from edge_tsad.errors import EdgeTsadError
from firmware_bridge.agent import Agent
from firmware_bridge.device import Device
from firmware_bridge.protocol import pack_bytes, pack_line, unpack_reply


def story(gateway: Device | ByLines, clock: HandClock) -> Iterator[str]:
    """Yields, after each part, the digest that must serve then."""
    first, second, third = (release(i).digest for i in (1, 2, 3))
    bring(gateway, release(1))
    yield first
    bring(gateway, release(2))
    yield first
    gateway.confirm()
    yield second
    bring(gateway, release(3), trial_s=30)
    yield second
    clock.monotonic_s += 31
    gateway.recover()
    yield second
    bring(gateway, release(3), trial_s=30)
    yield second
    clock.monotonic_s += 31
    with contextlib.suppress(OSError):  # a runtime that cannot write its report runs on
        stand_trial(gateway.folder.root, clock, since_s=clock.monotonic_s - 31)
    gateway.recover()
    yield third
    gateway.rollback()
    yield second
    bring(gateway, release(3))
    yield second
    gateway.rollback()
    yield second
    gateway.rollback()
    yield first
    try:
        bring(gateway, release(4, key=None))
    except EdgeTsadError as e:
        if "is not signed" not in str(e):
            raise
        yield first
    gateway.rollback("1.2")
    yield second


def expectations() -> list[str]:
    """What the story yields."""
    first, second, third = (release(i).digest for i in (1, 2, 3))
    return [
        first, first, second, second, second, second, third, second, second, second, first, first,
        second,
    ]  # fmt: skip


class Watched:
    """Passes ``after`` points, calls ``act`` at the next one, and goes on."""

    def __init__(self, after: int = 10**9, act: Callable[[], None] = lambda: None) -> None:
        self.left, self.act = after, act
        self.passed: list[str] = []

    def __call__(self, point: str) -> None:
        self.passed.append(point)
        self.left -= 1
        if self.left == -1:
            self.act()


def memory() -> str:
    """Where syncing is cheap, if there is such a place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()


def points() -> list[str]:
    """Every point of the story, in its order."""
    with tempfile.TemporaryDirectory(dir=memory()) as name:
        watched, clock = Watched(), HandClock()
        for _ in story(device(prepare(Path(name)), clock, witness=watched), clock):
            pass
    return watched.passed


class CutSink(io.BytesIO):
    """What an agent writes to; its reader may be gone."""

    gone = False

    def write(self, data: Any) -> int:
        if self.gone:
            raise BrokenPipeError
        return super().write(data)


class ByLines:
    """A gateway spoken with in lines; after a cut it is spoken with again, as `flash` does it.

    ``cut`` ends the line that is under way: what was asked is done, but its answer is lost.
    """

    def __init__(self, root: Path, clock: HandClock, witness: Watched) -> None:
        self._device = device(root, clock, witness=witness)
        self.folder, self.cuts = self._device.folder, 0
        self._sink = CutSink()

    def cut(self) -> None:
        self._sink.gone = True

    def offset(self, transfer: str, size: int) -> int:
        return int(self._insist("offset", transfer=transfer, size=size)["offset"])

    def receive(self, transfer: str, offset: int, data: bytes) -> int:
        try:
            reply = self._ask("receive", transfer=transfer, offset=offset, data=pack_bytes(data))
        except BrokenPipeError:
            size = offset + len(data)
            here = self.offset(transfer, size)
            return here if here == size else self.receive(transfer, here, data[here - offset :])
        return int(reply["offset"])

    def install(self, transfer: str, trial_s: float | None) -> None:
        self._insist("install", transfer=transfer, trial_s=trial_s)

    def confirm(self) -> None:
        digest = self.folder.load().trying
        self._insist("confirm", digest=digest)

    def rollback(self, to: str = "") -> None:
        before = self._last()
        try:
            self._ask("rollback", to=to)
        except BrokenPipeError:
            if self._last() == before:  # a person looks before asking again
                self.rollback(to)

    def recover(self) -> None:
        self._insist("status")

    def _last(self) -> int:
        entries = self._insist("history", limit=1)["entries"]
        return int(entries[-1]["number"]) if entries else 0

    def _insist(self, name: str, **fields: Any) -> dict[str, Any]:
        try:
            return self._ask(name, **fields)
        except BrokenPipeError:
            return self._ask(name, **fields)

    def _ask(self, name: str, **fields: Any) -> dict[str, Any]:
        self._sink = CutSink()
        try:
            source = io.BytesIO(pack_line({"request": name, **fields}))
            Agent(self._device).serve(source, self._sink, {})
        except BrokenPipeError:
            self.cuts += 1
            raise
        return unpack_reply(self._sink.getvalue(), "gw")
