"""The main job, step by step: train, export, bundle, run beside a broker, subscribe."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_tsad.bundle import Bundle, open_bundle
from edge_tsad.cli.alerts import human_line
from edge_tsad.demo.broker import Broker, broker
from edge_tsad.demo.data import Recording
from edge_tsad.errors import TransportError
from edge_tsad.training.fit import train
from edge_tsad.training.model import TrainedModel
from edge_tsad.training.series import read_csv
from export.build import export_bundle

__all__ = ["STREAM", "Outcome", "play"]

STREAM = "blood-pressure"
SITE, DEVICE, DATA = "demo", "gateway-1", "gateway"
RUNTIME_LIMIT_S = 120.0
QUIET_S = 3.0
"""How long the subscriber goes on listening after the runtime has ended."""

EDGE_TSAD = (sys.executable, "-m", "edge_tsad")

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What the run left.

    The bundle at ``path``, ``alerts`` as a subscriber got them, ``stats`` as the runtime wrote
    them; ``offset`` is the index of the recording that the runtime's grid index 0 stands for.
    """

    recording: Recording
    path: Path
    bundle: Bundle
    alerts: list[dict[str, Any]]
    stats: dict[str, Any]
    offset: int


def play(recording: Recording, folder: Path, seed: int, tell: Tell) -> Outcome:
    """Run the whole job; everything it makes goes to ``folder``, which exists.

    Raises:
        TransportError: no broker, or the runtime ended with an error.
    """
    model = _train(recording, folder, seed, tell)
    path = _export(model, folder, seed, tell)
    offset = recording.history - model.timing.window
    recording.write(folder / "replay.csv", offset)
    with broker(folder) as running:
        tell(f"{running.program} listens on {running.url}; the runtime starts as its own process")
        alerts, stats = _run(running, path, folder, tell)
    return Outcome(recording, path, open_bundle(path), alerts, stats, offset)


def _train(recording: Recording, folder: Path, seed: int, tell: Tell) -> TrainedModel:
    history = folder / "history.csv"
    recording.write(history, 0, recording.history)
    begun_s = time.monotonic()
    model = train(read_csv(history, name=recording.name), seed=seed, processes=os.cpu_count() or 1)
    model.save(folder / "coad.safetensors")
    tell(
        f"trained on {recording.history:,} points in {time.monotonic() - begun_s:.0f} s: "
        f"period {model.timing.period}, window {model.timing.window}, "
        f"delay {model.timing.delay} points"
    )
    return model


def _export(model: TrainedModel, folder: Path, seed: int, tell: Tell) -> Path:
    path = folder / "blood-pressure-1.0.0.tsad"
    begun_s = time.monotonic()
    manifest = export_bundle(
        model, path, name=STREAM, version="1.0.0", seed=seed, files_folder=folder
    )
    tell(
        f"exported and verified {len(manifest.files)} files in {time.monotonic() - begun_s:.0f} s; "
        f"bundled as {path.name}"
    )
    return path


def _run(
    running: Broker, bundle: Path, folder: Path, tell: Tell
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The runtime and a subscriber, each a process of its own."""
    # What an interrupted demo left unsent is no alert of this one.
    shutil.rmtree(folder / DATA, ignore_errors=True)
    settings, stats = folder / "gateway.toml", folder / "stats.json"
    settings.write_text(_configuration(running, bundle, folder))
    with _subscriber(running, tell) as alerts:
        gateway = subprocess.run(
            [*EDGE_TSAD, "run", str(settings), "--stats", str(stats)],
            capture_output=True,
            text=True,
            timeout=RUNTIME_LIMIT_S,
            check=False,
        )
        time.sleep(QUIET_S)
    if gateway.returncode != 0:
        raise TransportError(f"the runtime ended with: {gateway.stderr.strip()}")
    # What is said of the data's health was told above; the picture is of the process.
    of_process = [alert for alert in alerts if "onset_index" in alert]
    return of_process, json.loads(stats.read_text())


@contextlib.contextmanager
def _subscriber(running: Broker, tell: Tell) -> Iterator[list[dict[str, Any]]]:
    """Alerts as ``edge-tsad alerts`` prints them, told as they come."""
    command = [
        *EDGE_TSAD, "alerts", "--json", "--client-id", "edge-tsad-demo",
        "--broker", running.url, "--protocol", running.protocol,
    ]  # fmt: skip
    # Opens the session at the broker, which from then on keeps what comes before we listen again.
    subprocess.run([*command, "--timeout", "1"], capture_output=True, check=True)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    alerts: list[dict[str, Any]] = []

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            alerts.append(json.loads(line))
            tell(human_line(alerts[-1]))

    reader = threading.Thread(target=read, name="subscriber")
    reader.start()
    try:
        yield alerts
    finally:
        process.terminate()
        reader.join()
        process.wait()


def _configuration(running: Broker, bundle: Path, folder: Path) -> str:
    return f"""\
# The gateway of the demo. The broker lives only as long as the demo.
site = "{SITE}"
device = "{DEVICE}"
data_dir = "{(folder / DATA).resolve()}"

[broker]
url = "{running.url}"
protocol = "{running.protocol}"
score_interval_s = 0.0

[[streams]]
name = "{STREAM}"
bundle = "{bundle.resolve()}"
source = {{ type = "csv", path = "{(folder / "replay.csv").resolve()}", speed = "max" }}
"""
