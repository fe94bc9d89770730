"""Gateways with a clock, a sink and a source that the test holds in its hand."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from oracles import tiny_bundle
from oracles.taking_sink import TakingSink

from edge_tsad import registry
from edge_tsad.config import GatewayConfig, load_config
from edge_tsad.runtime.feed import Arrival
from edge_tsad.runtime.gateway import Gateway
from edge_tsad.runtime.sources.base import Batch, Complaints
from edge_tsad.types import Channel, Now, Timing

START = 1_800_000_000
SECOND = 10**9


class HandClock:
    """Shows what it was set to."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def now(self) -> Now:
        return Now(1000.0 + self.passed_s, int((START + self.passed_s) * SECOND), "boot")


class Sink(TakingSink):
    """A broker that takes everything at once."""

    def __init__(self) -> None:
        super().__init__()
        self.retained: dict[str, bytes] = {}
        self.delivered: list[tuple[str, bytes]] = []

    def retain(self, topic: str, payload: bytes) -> None:
        self.retained[topic] = payload

    def clear(self, topic: str) -> None:
        self.retained[topic] = b""

    def took(self, topic: str, payload: bytes) -> None:
        self.delivered.append((topic, payload))


@dataclass(frozen=True, slots=True)
class HandOptions:
    """``wire``: the name of the queue that a test fills."""

    wire: str = "wire"

    def at(self, folder: Path) -> HandOptions:
        return self


class HandSource:
    """A live source that delivers what the test puts into ``wires``."""

    Options: ClassVar[type[HandOptions]] = HandOptions
    wires: ClassVar[dict[str, queue.Queue[Batch]]] = {}
    live = True

    def __init__(self, options: HandOptions, channels: tuple[Channel, ...], timing: Timing) -> None:
        self.complaints = Complaints("hand")
        self._wire = self.wires.setdefault(options.wire, queue.Queue())

    @classmethod
    def known_channels(cls, options: HandOptions) -> tuple[Channel, ...]:
        return ()

    def batches(self, stop: threading.Event) -> Iterator[Batch]:
        while not stop.is_set():
            try:
                yield self._wire.get(timeout=0.05)
            except queue.Empty:
                continue


def with_hand_source(monkeypatch: Any) -> dict[str, queue.Queue[Batch]]:
    """Let configurations name the source ``hand``; returns its wires."""
    monkeypatch.setattr(HandSource, "wires", {})
    monkeypatch.setitem(registry.SOURCES._entries, "hand", f"{HandSource.__module__}:HandSource")
    return HandSource.wires


def prepared(folder: Path, monkeypatch: Any) -> Path:
    """The folder, with the bundle ``tiny.tsad`` and a source that the test holds in its hand."""
    with_hand_source(monkeypatch)
    tiny_bundle.make(folder / "tiny.tsad")
    return folder


def rows(values: list[float], start: int) -> Batch:
    """One a second on the first of two channels."""
    table = np.zeros((len(values), 2), np.float32)
    table[:, 0] = values
    return Batch((np.arange(len(values), dtype=np.int64) + start) * SECOND, table)


def never_wait(gateway: Gateway, idle: Callable[[], None]) -> None:
    """Let a gateway not wait for what is not there: ``idle`` is called instead."""
    arrivals = gateway.intake.arrivals
    take = arrivals.take

    def at_once(timeout_s: float) -> list[Arrival]:
        found = take(0)
        if not found:
            idle()
        return found

    arrivals.take = at_once  # type: ignore[method-assign]


def write_config(folder: Path, streams: list[str], extra: str = "", bundle: str = "tiny") -> Path:
    """A configuration of so many streams of a hand source, each with its own wire."""
    tables = "".join(
        f'[[streams]]\nname = "{name}"\nbundle = "{bundle}.tsad"\n'
        f'source = {{ type = "hand", wire = "{name}" }}\n'
        for name in streams
    )
    path = folder / "gateway.toml"
    path.write_text(f'site = "plant"\ndevice = "gw"\ndata_dir = "data"\n{extra}\n{tables}')
    return path


def make(path: Path, clock: HandClock | None = None) -> tuple[Gateway, Sink]:
    """A gateway that reloads from the same file."""
    sink = Sink()

    def load() -> GatewayConfig:
        return load_config(path)

    return Gateway(load(), clock, sink, load), sink  # type: ignore[arg-type]


class Running:
    """A gateway that runs in a thread of its own until the block ends."""

    def __init__(
        self, path: Path, prepare: Callable[[Gateway], None] = lambda gateway: None
    ) -> None:
        self._path, self._prepare = path, prepare
        self._made = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.gateway, self.sink = make(self._path)
            self._prepare(self.gateway)
        finally:
            self._made.set()
        self.gateway.run()

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._made.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.gateway.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()


def wait_for(condition: Callable[[], object], limit_s: float = 20) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
