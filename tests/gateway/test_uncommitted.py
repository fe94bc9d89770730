"""Alerts that cannot be stored when the sources end, or when the gateway is stopped."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from oracles import tiny_bundle

from edge_tsad.config import parse_config
from edge_tsad.runtime.gateway import Gateway
from edge_tsad.runtime.outbox import Bounds, Outbox
from edge_tsad.types import Now

START = 1_800_000_000
VALUES = [0.5] * 20 + [20.0] * 6 + [0.5] * 20


class NoBroker:
    """A sink without a connection."""

    connection = 0
    proof = "confirmed"

    def start(self) -> None: ...
    def tick(self) -> None: ...
    def retain(self, topic: str, payload: bytes) -> None: ...
    def offer(self, topic: str, payload: bytes) -> None: ...
    def close(self, farewell: object, timeout_s: float) -> None: ...

    def deliver(self, topic: str, payload: bytes, token: int) -> bool:
        return False

    def acknowledgements(self) -> list[object]:
        return []

    cleared = received = acknowledgements


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Gateway]:
    bundle = tiny_bundle.make(tmp_path)
    lines = [f"{START + i},{value},0" for i, value in enumerate(VALUES)]
    (tmp_path / "x.csv").write_text("\n".join(["time,flow,pressure", *lines, ""]))

    def build(drain_s: float = 1.0) -> Gateway:
        text = f'''site = "plant"
device = "gw"
data_dir = "{tmp_path / "state"}"
[broker]
drain_s = {drain_s}
[[streams]]
name = "pump"
bundle = "{bundle}"
source = {{ type = "csv", path = "x.csv", speed = "max" }}
'''
        return Gateway(parse_config(text, tmp_path), sink=NoBroker())  # type: ignore[arg-type]

    return build


class Failing:
    """An outbox that cannot be written for a number of times."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, times: float, failed: Callable[[], object] = int
    ) -> None:
        self.left = times
        commit = Outbox.commit

        def attempt(box: Outbox, *arguments: object) -> None:
            if self.left > 0:
                self.left -= 1
                failed()
                raise sqlite3.OperationalError("database is locked")
            commit(box, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(Outbox, "commit", attempt)


def stored(gateway: Gateway) -> int:
    box = Outbox(gateway.outbox.path, Bounds(), Now(0, 0, "boot"))
    count = box.counts.pending
    box.close()
    return count


@pytest.mark.parametrize(("drain_s", "times"), [(1.0, 4), (0.0, 1)])
def test_alerts_are_stored_after_the_end_of_the_sources(
    make: Callable[..., Gateway], monkeypatch: pytest.MonkeyPatch, drain_s: float, times: int
) -> None:
    gateway = make(drain_s)
    Failing(monkeypatch, times)
    gateway.run()
    assert stored(gateway) == 2 and not gateway.errors


def test_alerts_are_stored_after_a_stop(
    make: Callable[..., Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = make()
    Failing(monkeypatch, 4, gateway.stop)
    gateway.run()
    # How far the source came before the stop is a matter of chance.
    assert stored(gateway) == gateway.workers[0].announcer.counts.total() > 0 and not gateway.errors


def test_alerts_that_cannot_be_stored_are_an_error_and_come_again(
    make: Callable[..., Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = make(0.2)
    failing = Failing(monkeypatch, float("inf"))
    gateway.run()
    (error,) = gateway.errors
    assert error.startswith("pump: 2 alert(s) could not be stored in the outbox ")
    failing.left = 0
    again = make(0.2)
    again.run()
    assert stored(again) == 2 and not again.errors
