"""Each example is run, or validated, as a reader would."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from oracles import tiny_bundle

from edge_tsad.bundle import open_bundle
from edge_tsad.config import load_config
from edge_tsad.demo.data import blood_pressure

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(*command: str | Path, cwd: Path, timeout_s: float = 300) -> str:
    """Standard output; this Python's own commands are on the PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, "PATH": path}, capture_output=True, text=True,
        timeout=timeout_s, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    """What the first example leaves, for the second."""
    recording = blood_pressure()
    recording.write(folder / "history.csv", 0, recording.history)
    said = run(
        sys.executable, EXAMPLES / "train_from_csv.py", "history.csv", "pump.safetensors",
        cwd=folder,
    )  # fmt: skip
    assert "1200 points" in said
    assert "CALIBRATED" in said or "EXTRAPOLATED" in said
    return folder / "pump.safetensors"


def test_quantizing_offline_leaves_a_bundle_and_its_files(model: Path, folder: Path) -> None:
    said = run(EXAMPLES / "quantize_offline.sh", model, "pump-1.0.0.tsad", cwd=folder)
    bundle = open_bundle(folder / "pump-1.0.0.tsad")
    assert len(bundle.manifest.files) == 4
    assert {path.name for path in (folder / "exported").iterdir()} == {
        "coad-fp32.onnx", "coad-fp32.tflite", "coad-int8.onnx", "coad-int8.tflite",
    }  # fmt: skip
    assert bundle.digest[:12] in said


def test_the_subscriber_prints_what_is_published(stopped_mosquitto, tmp_path: Path) -> None:
    mosquitto = stopped_mosquitto
    mosquitto.start("log_type all")
    tiny_bundle.make(tmp_path / "tiny.tsad")
    rows = [[0.5, 0.5]] * 40 + [[9.0, 0.5]] * 6 + [[0.5, 0.5]] * 40
    lines = "\n".join(f"{flow},{pressure}" for flow, pressure in rows)
    (tmp_path / "live.csv").write_text(f"flow,pressure\n{lines}\n")
    subscriber = subprocess.Popen(
        [sys.executable, EXAMPLES / "subscribe.py", "127.0.0.1", str(mosquitto.port)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 20
        while "Sending SUBACK to my-alerts" not in mosquitto.log():
            assert time.monotonic() < deadline, mosquitto.log()
            time.sleep(0.05)
        run(
            "edge-tsad", "run", "--bundle", "tiny.tsad", "--source", "csv:live.csv",
            "--speed", "max", "--broker", mosquitto.url, "--data-dir", "data", cwd=tmp_path,
        )  # fmt: skip
        assert subscriber.stdout is not None
        first = subscriber.stdout.readline().split()
        assert first[0] == "new"
    finally:
        subscriber.terminate()
        subscriber.communicate(timeout=10)


def test_the_gateway_file_is_valid() -> None:
    config = load_config(EXAMPLES / "gateway.toml")
    assert [stream.name for stream in config.streams] == ["pump-3", "gateway"]
    assert config.broker.tls
