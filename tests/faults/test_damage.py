"""What a damaged or vanished file of the data folder means for the next start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Mosquitto
from faults import story
from faults.conftest import Play, environment
from oracles import tiny_bundle

COMMAND = [sys.executable, "-m", "edge_tsad", "run"]
VALUES = [0.5] * 20 + [20.0] * 6 + [0.5] * 20


def run(folder: Path, broker: Mosquitto, start: int = 1_800_000_000) -> str:
    """A run over a short file, to its end; what it said."""
    tiny_bundle.make(folder / "tiny.tsad")
    rows = [f"{start + i},{value},0" for i, value in enumerate(VALUES)]
    (folder / "x.csv").write_text("\n".join(["time,flow,pressure", *rows, ""]))
    done = subprocess.run(
        [*COMMAND, "--bundle", "tiny.tsad", "--source", "csv:x.csv", "--speed", "max",
         "--broker", broker.url, "--site", "plant", "--device", "gw", "--data-dir", "data"],
        check=False, cwd=folder, env=environment(), timeout=60, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_damaged_outbox_is_set_aside_and_said_and_the_gateway_starts(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    assert run(tmp_path, mosquitto) == ""
    database = tmp_path / "data" / "outbox.db"
    damaged = os.urandom(database.stat().st_size)
    database.write_bytes(damaged)
    said = run(tmp_path, mosquitto, 1_800_001_000)
    assert said.count("set aside as") == 1 and "outbox-damaged-1.db" in said
    assert (tmp_path / "data" / "outbox-damaged-1.db").read_bytes() == damaged
    assert run(tmp_path, mosquitto, 1_800_002_000) == ""


@pytest.mark.parametrize("gone", ["data/state/pump.npz", "data/history/pump", "data/outbox.db-wal"])
def test_a_start_without_one_of_its_files(play: Play, stage: Callable[[], Path], gone: str) -> None:
    folder = stage()
    assert play(folder, ["before settle", 3]) == -9
    path = folder / gone
    assert path.exists()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        file.unlink()
    assert play(folder) == 0
    assert story.read_journal(folder / "journal")[-1]["errors"] == []
