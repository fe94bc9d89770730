"""Health as alerts of its own: committed, kept over restarts, and apart from the anomalies."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles import tiny_bundle

from edge_tsad.config import parse_config
from edge_tsad.runtime import health as module
from edge_tsad.runtime.opening import StreamOpener
from edge_tsad.runtime.outbox import Bounds, Outbox
from edge_tsad.runtime.sources.base import Batch
from edge_tsad.runtime.worker import StreamWorker
from edge_tsad.types import Now

SECOND = 10**9
START = 1_800_000_000


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are looked at every second, so that a test may tell one from the next."""
    monkeypatch.setattr(module, "LOOK_S", 1.0)


class Gateway:
    """A worker that can be restarted, with a live source."""

    def __init__(self, folder: Path, health: str = "") -> None:
        self.folder = folder
        bundle = tiny_bundle.make(folder)
        (folder / "x.csv").write_text("flow,pressure\n")
        text = (
            f'site = "plant"\ndevice = "gw"\n[[streams]]\nname = "s"\nbundle = "{bundle}"\n'
            f'source = {{ type = "csv", path = "x.csv" }}\n{health}'
        )
        self.config = parse_config(text, folder)
        self.outbox = Outbox(folder / "outbox.db", Bounds(), Now(0, 0, "boot"))
        self.second = 0
        self.set_back_s = 0
        self.start()

    def start(self) -> None:
        (stream,) = StreamOpener(self.config).open_all()
        stream.source.live = True
        self.worker = StreamWorker(stream, self.outbox, self.folder / "s.npz")

    @property
    def now(self) -> Now:
        return Now(self.second, (START + self.second - self.set_back_s) * SECOND, "boot")

    def pass_time(self, seconds: int, flow: float | None = None) -> None:
        for _ in range(seconds):
            self.second += 1
            if flow is not None:
                values = np.array([[flow, self.second % 2]], np.float32)
                self.worker.take(Batch(np.array([self.now.wall_ns]), values), self.now)
            self.worker.advance(self.now)

    def rows(self) -> list[tuple[str, dict[str, Any]]]:
        return [(row.stream, json.loads(row.payload)) for row in self.outbox.pending(limit=1000)]


@pytest.fixture
def gateway(tmp_path: Path) -> Any:
    made = Gateway(tmp_path)
    yield made
    made.outbox.close()


def test_health_alerts_have_ids_of_their_own_and_their_own_topic(gateway: Gateway) -> None:
    gateway.pass_time(30, 0.5)
    gateway.pass_time(200)
    assert gateway.worker.process == "OK" and gateway.worker.all_health() == {"NO_DATA"}
    state = gateway.worker.describe()
    assert state["health"] == ["NO_DATA"]
    gateway.pass_time(3, 0.5)
    (topic, new), (_, end) = gateway.rows()
    assert topic == "s/health" and state["conditions"][0]["id"] == new["id"] == end["id"]
    assert (new["kind"], new["type"], end["type"]) == ("health", "new", "end")
    assert (new["seq"], end["seq"]) == (1, 2) and new["epoch"] == gateway.outbox.epoch
    assert new["condition"] == "NO_DATA" and new["channels"] == ["flow", "pressure"]
    assert new["reason"] == "s: no data comes." and end["reason"] == "s: data comes again."
    assert new["time"] > "2027-01-15T08:01" and new["digest"] == gateway.worker.facts.digest
    assert len(json.dumps(new)) < 2048


def test_a_restart_in_silence_neither_ends_nor_repeats_it(gateway: Gateway) -> None:
    gateway.pass_time(30, 0.5)
    gateway.pass_time(200)
    for _ in range(5):
        gateway.worker.snapshot()
        gateway.start()
        assert gateway.worker.all_health() == {"NO_DATA"}
        gateway.pass_time(400)
    assert len(gateway.rows()) == 1
    gateway.pass_time(3, 0.5)
    (_, new), (_, end) = gateway.rows()
    assert new["id"] == end["id"] and end["since"] == new["since"]


def test_process_alerts_are_untouched_by_health(gateway: Gateway) -> None:
    gateway.pass_time(30, 0.5)
    gateway.pass_time(6, 20.0)
    gateway.pass_time(200)
    gateway.pass_time(30, 0.5)
    kinds = [(topic, message["type"]) for topic, message in gateway.rows()]
    assert kinds[:2] == [("s", "new"), ("s/health", "new")]
    assert sorted(kinds[2:]) == [("s", "end"), ("s/health", "end")]
    assert len({message["id"] for _, message in gateway.rows()}) == 2
    assert [message["seq"] for _, message in gateway.rows()] == [1, 2, 3, 4]


def test_a_full_disk_delays_a_health_alert(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    gateway.pass_time(30, 0.5)
    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "commit", full)
        gateway.pass_time(200)
        assert not gateway.rows() and caplog.text.count("is not stored yet") == 1
    gateway.pass_time(1)
    assert [message["type"] for _, message in gateway.rows()] == ["new"]


def test_a_live_clock_set_back_begins_anew_instead_of_being_late_for_hours(
    gateway: Gateway,
) -> None:
    gateway.pass_time(30, 0.5)
    gateway.pass_time(5, 20.0)
    gateway.set_back_s = 7200
    gateway.pass_time(1)
    gateway.pass_time(40, 0.5)
    assert gateway.worker.process == "OK" and gateway.worker.pipeline.resampler.late == 0
    process = [message for topic, message in gateway.rows() if topic == "s"]
    assert [message["type"] for message in process] == ["new", "end"] and process[1]["data_lost"]
    clock = [message for topic, message in gateway.rows() if topic == "s/health"]
    assert "the clock jumped by -7200.0 s" in clock[0]["reason"]


def test_damaged_health_state_is_said_and_begun_anew(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    for data in (b"[1]", b"{", b'{"STUCK": 3}', b"\xff"):
        gateway.outbox.commit("s/health", [], data, gateway.now)
        gateway.start()
        assert gateway.worker.all_health() == set()
    assert caplog.text.count("state of its health is not used") == 4
