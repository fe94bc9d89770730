"""CMDML on the command line: from a CSV file to alerts with its details, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Mosquitto

from edge_tsad.broker import BrokerConfig
from edge_tsad.bundle import open_bundle
from edge_tsad.runtime.payload import LARGEST_ALERT
from edge_tsad.runtime.subscription import AlertSubscription
from edge_tsad.training.model import TrainedModel

START = 1_800_000_000
QUICK = ("--set", "steps=10", "--set", "window=64", "--set", "classes=4", "--set", "hidden=8")


def edge_tsad(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_tsad", *arguments],
        cwd=folder, text=True, capture_output=True, check=False,
        env={**os.environ, "XDG_STATE_HOME": str(folder / "state")},
    )  # fmt: skip


def write(path: Path, values: np.ndarray, start: int = START) -> Path:
    lines = (f"{start + i}," + ",".join(f"{v:.5g}" for v in row) for i, row in enumerate(values))
    header = ",".join(["time", *(f"s{i}" for i in range(values.shape[1]))])
    path.write_text("\n".join([header, *lines, ""]))
    return path


def waves(points: int, channels: int = 1) -> np.ndarray:
    phase = 2 * np.pi * np.arange(points)[:, None] / 16 + np.arange(channels)
    return np.sin(phase) + np.random.default_rng(points).normal(0, 0.05, phase.shape)


def test_train_export_and_run_end_in_alerts_with_class_and_turn(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    write(tmp_path / "pump.csv", waves(800, 2))
    trained = edge_tsad(tmp_path, "train", "pump.csv", "--detector", "cmdml", *QUICK)
    assert trained.returncode == 0, trained.stderr
    made = edge_tsad(
        tmp_path,
        "export",
        "pump.safetensors",
        "--format",
        "onnx",
        "--quantize",
        "none",
        "--out",
        "pump.tsad",
    )
    assert made.returncode == 0, made.stderr
    names = [tensor.name for tensor in open_bundle(tmp_path / "pump.tsad").manifest.outputs]
    assert names == ["score", "channel_score", "class", "turn_deg"]
    live = waves(600, 2)
    live[300:340] = 4 * np.sign(live[300:340])
    write(tmp_path / "live.csv", live)
    config = BrokerConfig(mosquitto.url)
    list(AlertSubscription(config, "test", "edge-tsad/#").alerts(0.7))
    done = edge_tsad(
        tmp_path, "run", "--bundle", "pump.tsad", "--source", "csv:live.csv", "--speed", "max",
        "--site", "plant", "--device", "gw", "--stream", "pump", "--broker", mosquitto.url,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    subscription = AlertSubscription(config, "test", "edge-tsad/plant/gw/alert/#")
    alerts = [alert for alert in subscription.alerts(1.0) if alert["type"] == "new"]
    hits = [alert for alert in alerts if START + 280 <= alert["peak_index"] <= START + 360]
    assert hits
    for alert in hits:
        details = alert["details"]
        assert set(details) <= {"class", "turn_deg"} and details
        assert details.get("class", 0) in range(4) and 0 <= details.get("turn_deg", 0) <= 90
        assert len(json.dumps(alert).encode()) <= LARGEST_ALERT


FLAT = np.ones((400, 1))


@pytest.mark.parametrize(
    ("values", "arguments", "sentence"),
    [
        (FLAT, (), "constant"),
        (waves(20), (), "20 points of history are too few"),
        (waves(400), ("--set", "classes=0"), "cmdml.classes: 0 is less than 1"),
        (waves(400), ("--set", "dimension=2"), "cmdml.dimension: 2 is less than 3"),
        (waves(400), ("--set", "clases=4"), "clases"),
        (waves(400), ("--set", "steps=many"), "steps"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    tmp_path: Path, values: np.ndarray, arguments: tuple[str, ...], sentence: str
) -> None:
    write(tmp_path / "x.csv", values)
    done = edge_tsad(
        tmp_path, "train", "x.csv", "--detector", "cmdml", "--set", "window=64", *arguments
    )
    assert done.returncode == 2
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize(
    ("values", "most"),
    [
        (waves(200), 200 // 32),  # too short for 24 classes
        (np.tile([[0.0], [1.0]], (300, 1)), 24),  # all windows alike
        (np.eye(1, 400, 200).T, 24),  # stands still but for one point
    ],
)
def test_a_history_with_less_than_it_asks_for_gets_fewer_classes(
    tmp_path: Path, values: np.ndarray, most: int
) -> None:
    write(tmp_path / "x.csv", values)
    done = edge_tsad(
        tmp_path, "train", "x.csv", "--detector", "cmdml", "--set", "window=64", "--set", "steps=5"
    )
    assert done.returncode == 0, done.stderr
    classes = TrainedModel.load(tmp_path / "x.safetensors").detector.settings()["classes"]
    assert 1 <= classes <= most
