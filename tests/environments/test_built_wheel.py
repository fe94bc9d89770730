"""The built wheel is what people install, and what a gateway runs works there.

No torch, no pandas, nothing of the workstation's. One file, because the environments are shared and
tests of one file run one after another.
"""

import json
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from environments.conftest import Environment
from oracles import toy_files

pytestmark = pytest.mark.environment

WORKSTATION = {
    "aeon", "ai_edge_quantizer", "export", "joblib", "litert_torch", "matplotlib", "onnx",
    "onnxscript", "pandas", "rich", "safetensors", "scipy", "sklearn", "torch",
}  # fmt: skip
RUNTIMES = {"litert": "litert", "ort": "onnxruntime", "tflite": "tflite-runtime"}


@pytest.mark.parametrize("name", RUNTIMES)
def test_run_and_alerts_deliver_an_alert(
    name: str,
    environment: Callable[[str], Environment],
    small_bundle: Path,
    spiked_csv: Path,
    mosquitto,
    tmp_path: Path,
) -> None:
    gateway = environment(name)
    broker = f"mqtt://127.0.0.1:{mosquitto.port}"
    # Opens the session: the broker keeps from now on what comes before anybody listens.
    opened = gateway.run("alerts", "--broker", broker, "--timeout", "2")
    assert opened.returncode == 0, opened.stderr
    run = gateway.run(
        "run", "--bundle", str(small_bundle), "--source", f"csv:{spiked_csv}", "--speed", "max",
        "--broker", broker, "--stream", "pump", "--stats", str(tmp_path / "stats.json"),
        "--data-dir", str(tmp_path / "data"),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert not gateway.imported() & WORKSTATION
    alerts = gateway.run("alerts", "--broker", broker, "--json", "--timeout", "5")
    assert not gateway.imported() & WORKSTATION
    kinds = [json.loads(line)["type"] for line in alerts.stdout.splitlines()]
    assert (kinds[0], kinds[-1]) == ("new", "end"), alerts.stderr
    assert kinds.count("new") == 1
    assert (
        json.loads((tmp_path / "stats.json").read_text())["streams"]["pump"]["backend"]
        == (RUNTIMES[name])
    )


def test_info_needs_nothing_of_the_workstation(
    environment: Callable[[str], Environment], small_bundle: Path
) -> None:
    gateway = environment("tflite")
    shown = gateway.run("info", str(small_bundle))
    assert shown.returncode == 0, shown.stderr
    assert any(word in shown.stdout for word in ("CALIBRATED", "EXTRAPOLATED"))
    assert not gateway.imported() & WORKSTATION


def test_a_workstation_command_names_the_missing_extra(
    environment: Callable[[str], Environment], spiked_csv: Path
) -> None:
    refused = environment("ort").run("train", str(spiked_csv))
    assert refused.returncode == 2
    assert 'pip install "edge-tsad[train]"' in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_numpy_one_environment_really_has_it(environment: Callable[[str], Environment]) -> None:
    python = environment("tflite").python
    code = "import numpy; print(numpy.__version__)"
    version = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("1.24.")
    assert int(np.__version__.partition(".")[0]) >= 2, "and the workstation the other one"


SCORES = """
import sys
from pathlib import Path
import numpy as np
from edge_tsad.registry import BACKENDS
folder, runtime = Path(sys.argv[1]), sys.argv[2]
stored = np.load(folder / "windows.npz")
window, observed = stored["window"], stored["observed"]
scores = {}
for path in folder.glob("*.tflite"):
    backend = BACKENDS[runtime](path.read_bytes())
    every = [backend.score(window[i : i + 1], observed[i : i + 1]) for i in range(len(window))]
    scores[path.stem] = np.concatenate([outputs["score"] for outputs in every])
np.savez(folder / f"{runtime}.npz", **scores)
"""
TOLERANCE = {"none": 1e-5, "fp16": 1e-5, "weights": 1e-5, "static": 0.02, "dynamic": 0.05}
"""Of the distance from the median normal score to the threshold, for 99 of 100 points: the last bit
of an int8 output may be rounded otherwise, which in a net as small as the toy goes up to 0.033."""


def test_tflite_runtime_computes_every_scheme_as_litert_does(
    environment: Callable[[str], Environment], tmp_path: Path
) -> None:
    from edge_tsad.runtime.threshold import Budget, Threshold
    from export.windows import Windows

    model = toy_files.model()
    threshold = Threshold.from_tail(model.tail, Budget.parse("1/7d", model.timing))
    windows = Windows.join([toy_files.normal(), toy_files.anomalous()])
    np.savez(tmp_path / "windows.npz", window=windows.window, observed=windows.observed)
    # Ranges of normal operation: wider ones make the last bit worth more than the tolerance.
    exporter = toy_files.EXPORTERS["tflite"]
    for scheme in TOLERANCE:
        data = exporter.quantize(toy_files.original("tflite"), scheme, toy_files.normal())
        (tmp_path / f"{scheme}.tflite").write_bytes(data)
    for name in ("litert", "tflite"):
        python = environment(name).python
        command = [python, "-I", "-c", SCORES, tmp_path, RUNTIMES[name]]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
    here, there = (np.load(tmp_path / f"{RUNTIMES[name]}.npz") for name in ("litert", "tflite"))
    assert set(here.files) == set(TOLERANCE)
    for scheme, most in TOLERANCE.items():
        error = np.abs(here[scheme] - there[scheme]) / (threshold.value - threshold.median)
        assert np.quantile(error, 0.99) <= most, scheme


def test_a_stop_signal_ends_a_live_run_cleanly(
    environment: Callable[[str], Environment], small_bundle: Path, mosquitto, tmp_path: Path
) -> None:
    gateway = environment("litert")
    process = gateway.popen(
        "run", "--bundle", str(small_bundle), "--source", "stdin",
        "--broker", f"mqtt://127.0.0.1:{mosquitto.port}", "--data-dir", str(tmp_path / "data"),
        stdin=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while "New client connected" not in mosquitto.log():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err


@pytest.mark.parametrize("name", RUNTIMES)
def test_doctor_record_and_check_need_nothing_of_the_workstation(
    name: str,
    environment: Callable[[str], Environment],
    small_bundle: Path,
    spiked_csv: Path,
    tmp_path: Path,
) -> None:
    gateway = environment(name)
    file = tmp_path / "gateway.toml"
    file.write_text(
        f'site = "s"\ndevice = "d"\n[[streams]]\nname = "pump"\nbundle = "{small_bundle}"\n'
        f'source = {{ type = "csv", path = "{spiked_csv}" }}\n'
    )
    for arguments, shown in (
        (("doctor",), RUNTIMES[name]),
        (("record", "--source", f"csv:{spiked_csv}", "--out", str(tmp_path / "h.npz")), ""),
        (("check", str(file)), "pump"),
    ):
        done = gateway.run(*arguments)
        assert done.returncode == 0, done.stderr
        assert shown in done.stdout
        assert not gateway.imported() & WORKSTATION
    assert (tmp_path / "h.npz").exists()


def test_the_wheel_holds_the_three_packages_and_nothing_beside_them(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"edge_tsad", "export", "firmware_bridge"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_installed_entry_point_answers(environment: Callable[[str], Environment]) -> None:
    script = environment("ort").python.parent / "edge-tsad"
    shown = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert "0.1.0" in shown.stdout
    shown = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    for command in ("train", "export", "info", "run", "alerts", "demo"):
        assert command in shown.stdout
