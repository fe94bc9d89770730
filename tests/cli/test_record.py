"""``edge-tsad record``: from a source to a file that training reads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from oracles import tiny_bundle

from edge_tsad.cli import main
from edge_tsad.runtime.segments import read_recording

START = 1_800_000_000


def call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["record", *arguments])
    return result.exit_code, result.stderr


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [f"{START + i},{i % 7},{i % 3}" for i in range(200)]
    (tmp_path / "x.csv").write_text("\n".join(["time,flow,pressure", *lines, ""]))
    return tmp_path


def test_a_file_is_recorded_and_written_as_a_series(folder: Path) -> None:
    from edge_tsad.training.series import load

    code, err = call("--source", "csv:x.csv", "--out", "h.csv")
    assert code == 0, err
    assert "h: 200 rows recorded" in err and "h.csv: 200 rows" in err
    series = load(folder / "h.csv")
    assert series.step_ns == 10**9 and series.values[:8, 0].tolist() == [*range(7), 0]
    assert call("--from", "h.csv.d", "--last", "50s", "--out", "last.npz")[0] == 0
    assert len(load(folder / "last.npz")) == 50


def test_the_grid_is_the_step_that_was_asked_for(folder: Path) -> None:
    code, err = call("--source", "csv:x.csv", "--step", "10s", "--channels", "flow", "--out", "h")
    assert code == 0, err
    recording = read_recording(folder / "h")
    assert recording.layout.step_ns == 10**10 and recording.values.shape == (20, 1)
    assert recording.values[0, 0] == np.float32(np.mean([*range(7), 0, 1, 2]))


def test_the_machine_itself_needs_no_names(folder: Path) -> None:
    code, err = call("--source", "system", "--step", "100ms", "--for", "1s", "--out", "host")
    assert code == 0, err
    recording = read_recording(folder / "host")
    names = [channel.name for channel in recording.layout.channels]
    assert {"cpu_percent", "memory_percent"} <= set(names) and len(recording.index) >= 4
    code, err = call("--source", "system", "--step", "100ms", "--for", "0.5s", "--out", "host")
    assert code == 0, err
    assert len(read_recording(folder / "host").index) > len(recording.index)


def test_a_configuration_records_streams_with_and_without_a_bundle(folder: Path) -> None:
    tiny_bundle.make(folder / "tiny.tsad")
    (folder / "gateway.toml").write_text("""
site = "plant"
device = "gw"
data_dir = "data"
[[streams]]
name = "one"
bundle = "tiny.tsad"
source = { type = "csv", path = "x.csv", speed = "max" }
[[streams]]
name = "two"
step_s = 2
channels = [{ name = "flow", unit = "l/min", aggregate = "max" }]
source = { type = "csv", path = "x.csv", speed = "max" }
""")
    code, err = call("gateway.toml")
    assert code == 0, err
    one = read_recording(folder / "data/history/one")
    two = read_recording(folder / "data/history/two")
    assert one.values.shape == (200, 2) and two.values.shape == (100, 1)
    assert two.layout.channels[0].unit == "l/min" and two.values[0, 0] == 1
    code, err = call("gateway.toml", "--out", "x.npz")
    assert code == 2 and "has several streams" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_all_is_stored(folder: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_tsad", "record", "--source", "stdin", "--channels", "a,b",
         "--out", "h.npz"],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
    )  # fmt: skip
    assert process.stdin and process.stderr
    process.stdin.write("".join(f"{START + i},1,2\n" for i in range(20)))
    process.stdin.flush()
    end = time.monotonic() + 20
    while not (folder / "h.npz.d/lock").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0 and "20 rows recorded" in err
    with np.load(folder / "h.npz") as file:
        assert file["values"].shape == (20, 2) and file["channels"].tolist() == ["a", "b"]


def test_a_kill_costs_at_most_what_was_not_synced(folder: Path) -> None:
    (folder / "gateway.toml").write_text("""
site = "plant"
device = "gw"
data_dir = "data"
history.sync_s = 0.2
[[streams]]
name = "s"
step_s = 1
channels = ["a"]
source.type = "stdin"
""")
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_tsad", "record", "gateway.toml"],
        stdin=subprocess.PIPE, cwd=folder, text=True, env=os.environ,
    )  # fmt: skip
    assert process.stdin
    process.stdin.write("".join(f"{START + i},{i}\n" for i in range(30)))
    process.stdin.flush()
    end = time.monotonic() + 20
    while not list((folder / "data/history/s").glob("*.seg")):
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(0.5)
    process.kill()
    process.communicate()
    recording = read_recording(folder / "data/history/s")
    assert recording.values[:, 0].tolist() == [float(i) for i in range(29)]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give either a CONFIG file, --source or --from"),
        (["g.toml", "--source", "stdin"], "give either"),
        (["--source", "stdin", "--out", "h"], "channels: the source stdin cannot name them"),
        (["--source", "stdin"], "--source needs --out"),
        (["--source", "csv:no.csv", "--out", "h"], "no.csv: cannot be read"),
        (["--source", "system", "--step", "often", "--out", "h"], "--step: 'often' is no duration"),
        (["--source", "csv:x.csv", "--out", "no/h"], "the folder no does not exist"),
        (["--from", "nothing", "--out", "x.csv"], "nothing: holds no recording"),
        (["--from", "nothing"], "--from needs --out FILE"),
        (["g.toml", "--step", "1s"], "belong into the file g.toml"),
        (["--source", "csv:x.csv", "--out", "h", "--max-mb", "0"], "history.max_mb"),
    ],
)
def test_bad_input_is_one_sentence(folder: Path, arguments: list[str], sentence: str) -> None:
    code, err = call(*arguments)
    assert code == 2 and sentence in err and len(err.splitlines()) == 1, err
