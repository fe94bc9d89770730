"""A bundle computes and alerts the same on every runtime that an ARM gateway can have.

The reference is the same file on this machine. ``make test-arm`` runs all pairs of system and
runtime, `make test` one of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulation import Emulated
from systems import SYSTEMS

EXPORTED = ("none", "fp16", "dynamic", "static", "weights")

REPLAY = Path(__file__).with_name("replay.py")
TIMEOUT_S = 500

# Largest difference of a score between runtimes, in units of threshold − median normal score.
TOLERANCE = {"none": 1e-5, "weights": 1e-5, "fp16": 1e-5, "static": 0.02, "dynamic": 0.05}
EXACT = ("none", "weights", "fp16")
ROUNDED = {("trixie-armv7l", "onnxruntime"): 2e-4}
"""Debian's ONNX Runtime 1.21 for 32 bit rounds otherwise: exact schemes differ by up to 1e-4 there,
a tenth of what export allows a float32 file. Alerts do not differ."""

IN_MAKE_TEST = ("trixie-aarch64", "litert")
PAIRS = [
    pytest.param(
        (name, runtime),
        id=f"{name}-{runtime}",
        marks=() if (name, runtime) == IN_MAKE_TEST else pytest.mark.arm,
    )
    for name, system in SYSTEMS.items()
    for runtime in system.runtimes
]


@dataclass(frozen=True)
class Replay:
    """What `replay.py` wrote on one machine."""

    about: dict[str, Any]
    golden: list[np.ndarray]
    stream: list[np.ndarray]

    @classmethod
    def of(cls, done: subprocess.CompletedProcess[str], arrays: Path) -> Replay:
        assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-3000:]}"
        about = json.loads(done.stdout.splitlines()[-1])
        with np.load(arrays) as stored:
            count = range(len(about["replays"]))
            golden, stream = ([stored[f"{i}.{key}"] for i in count] for key in ("golden", "stream"))
        return cls(about, golden, stream)

    def position(self, path: str) -> int:
        """Where ``path`` stands in the lists."""
        return [replay["path"] for replay in self.about["replays"]].index(path)


@dataclass(frozen=True)
class Case:
    """A bundle, a stream for it, and what this machine makes of them."""

    bundle: Path
    cells: Path
    here: Replay
    slack: int


def signal(points: int, seed: int) -> np.ndarray:
    """Two channels f32[points, 2] with a period of 32 points and a small disturbance now and then.

    Without those, normal scores would hardly differ and all errors be large beside the threshold.
    """
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * np.arange(points) / 32
    clean = np.stack([20 + 5 * np.sin(angle), 3 * np.cos(angle) + np.sin(2 * angle)], axis=1)
    for start in range(100, points - 20, 150):
        width, channel = rng.integers(5, 15), rng.integers(2)
        clean[start : start + width, channel] += rng.uniform(1, 3)
    return (clean + rng.normal(0, [0.1, 0.06], clean.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A small net with every scheme in both formats, and 400 points with two anomalies."""
    import torch

    from edge_tsad.training.fit import train
    from edge_tsad.training.series import Series
    from edge_tsad.types import Channel
    from export.build import export_bundle

    folder = tmp_path_factory.mktemp("arm")
    second, history = 1_000_000_000, signal(6000, seed=1)
    series = Series(
        np.arange(len(history)) * second,
        history,
        (Channel("temperature", "°C"), Channel("flow", "l/s")),
        second,
        name="history",
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # equal weights on every machine, hence one verdict of the gate
    try:
        model = train(series, "coad", seed=0, options={"window": 128, "steps": 300, "batch": 16})
        bundle, cells, out = (folder / name for name in ("a.tsad", "cells.npz", "here.npz"))
        manifest = export_bundle(model, bundle, schemes=EXPORTED)
    finally:
        torch.set_num_threads(threads)
    values = signal(400, seed=2)
    values[210:230, 0] += 12
    values[310:350] = values[310]
    index = np.arange(10_000, 10_000 + len(values))
    np.savez(cells, index=index, values=values, observed=np.ones_like(values))
    done = subprocess.run(
        [sys.executable, REPLAY, bundle, cells, out],
        text=True,
        capture_output=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    timing = manifest.timing
    return Case(bundle, cells, Replay.of(done, out), timing.hop + timing.smoothing)


def onsets(replay: dict[str, Any]) -> list[int]:
    return [onset for kind, onset, _ in replay["alerts"] if kind == "new"]


def furthest(there: np.ndarray, here: np.ndarray, unit: float) -> float:
    """Largest difference in units; the same scores must be withheld."""
    np.testing.assert_array_equal(np.isfinite(there), np.isfinite(here))
    return float(np.nanmax(np.abs(there - here))) / unit


def test_formats_alert_alike_here(case: Case) -> None:
    found = {replay["path"]: onsets(replay) for replay in case.here.about["replays"]}
    assert {path.rpartition(".")[2] for path in found} == {"onnx", "tflite"}
    first = next(iter(found.values()))
    assert first, "the stream must have an alert, or equal alerts say nothing"
    for path, others in found.items():
        assert len(others) == len(first), (path, found)
        assert np.abs(np.subtract(others, first)).max() <= case.slack, (path, found)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("pair", PAIRS)
def test_arm_computes_and_alerts_as_here(
    pair: tuple[str, str],
    case: Case,
    system: Callable[[str, str], Emulated],
    report: list[str],
    tmp_path: Path,
) -> None:
    name, runtime = pair
    machine = system(name, runtime)
    out = tmp_path / "there.npz"
    done = machine.run([REPLAY, case.bundle, case.cells, out], runtime=runtime, timeout_s=TIMEOUT_S)
    there = Replay.of(done, out)
    assert there.about["machine"] == SYSTEMS[name].machine
    assert there.about["python"].startswith(SYSTEMS[name].python)
    assert there.about["replays"], f"{name} replayed nothing with {runtime}"
    problems = []
    for i, replay in enumerate(there.about["replays"]):
        assert replay["runtime"] == runtime
        at = case.here.position(replay["path"])
        here = case.here.about["replays"][at]
        unit = here["threshold"] - here["median"]
        golden = furthest(there.golden[i], case.here.golden[at], unit)
        stream = furthest(there.stream[i], case.here.stream[at], unit)
        slack = 0 if replay["scheme"] in EXACT else case.slack
        alike = len(onsets(replay)) == len(onsets(here)) and all(
            abs(a - b) <= slack for a, b in zip(onsets(replay), onsets(here), strict=True)
        )
        line = (
            f"{name} {runtime} {replay['version']} {replay['path']}: golden {golden:.1e},"
            f" stream {stream:.1e} of the unit, {len(onsets(replay))} alerts,"
            f" {'alike' if alike else 'OTHERS'}, {replay['seconds']} s"
        )
        report.append(line)
        assert replay["threshold"] == pytest.approx(here["threshold"], rel=1e-6)
        bound = max(TOLERANCE[replay["scheme"]], ROUNDED.get(pair, 0.0))
        if max(golden, stream) > bound or not alike or replay["self_test"]:
            problems.append(f"{line} {replay['self_test']}")
    assert not problems
