"""Health alerts and the recording of a gateway that runs, with a real broker."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import Mosquitto
from oracles import tiny_bundle

from edge_tsad.broker import BrokerConfig
from edge_tsad.cli import main
from edge_tsad.cli.alerts import human_line
from edge_tsad.runtime.segments import read_recording
from edge_tsad.runtime.subscription import AlertSubscription

START = 1_800_000_000


def wait_for(condition: Callable[[], object], limit_s: float = 30) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def folder(mosquitto: Mosquitto, tmp_path: Path) -> Path:
    tiny_bundle.make(tmp_path / "tiny.tsad")
    (tmp_path / "gateway.toml").write_text(f"""
site = "plant"
device = "gw"
data_dir = "data"
broker.url = "{mosquitto.url}"
history.sync_s = 0.5
[[streams]]
name = "pump"
bundle = "tiny.tsad"
record = true
source.type = "stdin"
[streams.health]
no_data_s = 1.5
bounds = {{ pressure = [-1, 1] }}
""")
    return tmp_path


Begin = Callable[[Path], "subprocess.Popen[str]"]


@pytest.fixture
def begin() -> Iterator[Begin]:
    running: list[subprocess.Popen[str]] = []

    def start(folder: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge_tsad", "run", "gateway.toml"],
            cwd=folder, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ,
        )  # fmt: skip
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def write(process: subprocess.Popen[str], first: int, values: list[float], pressure: float) -> None:
    assert process.stdin
    for i, value in enumerate(values):
        process.stdin.write(f"{START + first + i},{value},{pressure}\n")
    process.stdin.flush()


def test_health_alerts_survive_a_kill_and_the_recording_can_be_trained_on(
    mosquitto: Mosquitto, folder: Path, begin: Begin
) -> None:
    config = BrokerConfig(mosquitto.url)
    for name, where in (("all", "alert/#"), ("process", "alert/+")):
        list(AlertSubscription(config, name, f"edge-tsad/plant/gw/{where}").alerts(0.7))
    everything = AlertSubscription(config, "all", "edge-tsad/plant/gw/alert/#").alerts(60)
    process = begin(folder)
    write(process, 0, [0.5] * 20, 0)
    silent = next(everything)
    assert (silent["kind"], silent["condition"], silent["type"]) == ("health", "NO_DATA", "new")
    history = folder / "data/history/pump"
    wait_for(lambda: list(history.glob("*.seg")))
    time.sleep(1)
    process.kill()
    process.wait()

    process = begin(folder)
    time.sleep(3)  # still silent: the alert is open and is not raised again
    write(process, 20, [0.5] * 15 + [20.0] * 5 + [0.5] * 30, 1.5)
    heard: list[dict[str, Any]] = list(itertools.islice(everything, 4))
    by_id = {(each.get("condition", "process"), each["type"]): each for each in heard}
    assert set(by_id) == {
        ("NO_DATA", "end"), ("RANGE", "new"), ("process", "new"), ("process", "end"),
    }  # fmt: skip
    assert by_id["NO_DATA", "end"]["id"] == silent["id"]
    assert by_id["RANGE", "new"]["channels"] == ["pressure"]
    assert "pump: pressure is outside its range" in human_line(by_id["RANGE", "new"])
    assert "kind" not in by_id["process", "new"]
    assert [each["seq"] for each in [silent, *heard]] == [1, 2, 3, 4, 5]
    everything.close()
    process.terminate()
    process.wait(30)
    subscription = AlertSubscription(config, "process", "edge-tsad/plant/gw/alert/+")
    assert [each["type"] for each in subscription.alerts(2)] == ["new", "end"]

    recording = read_recording(history)
    assert recording.damaged == 0 and recording.layout.channels == tiny_bundle.CHANNELS
    assert recording.index[-1] >= START + 68 and len(recording.index) >= 68
    result = CliRunner().invoke(
        main, ["record", "--from", str(history), "--out", str(folder / "h.csv")]
    )
    assert result.exit_code == 0, result.output
    first, *rows = (folder / "h.csv").read_text().splitlines()
    assert first == "time,flow,pressure" and rows[0] == "2027-01-15T08:00:00.000000000Z,0.5,0.0"


def test_the_state_says_what_is_wrong(mosquitto: Mosquitto, folder: Path, begin: Begin) -> None:
    process = begin(folder)

    def state() -> dict[str, Any]:
        lines = subprocess.run(
            ["mosquitto_sub", "-p", str(mosquitto.port), "-t", "edge-tsad/plant/gw/state/pump",
             "-W", "1", "-C", "1"],
            capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip
        found: dict[str, Any] = json.loads(lines) if lines else {}
        return found

    write(process, 0, [0.5] * 4, 7)
    wait_for(lambda: "NO_DATA" in state().get("health", []))
    said = state()
    assert said["process"] == "WARMING_UP" and said["warmup_s"] > 0
    assert said["health"] == ["NO_DATA", "RANGE"]
    assert [each["condition"] for each in said["conditions"]] == ["NO_DATA", "RANGE"]
