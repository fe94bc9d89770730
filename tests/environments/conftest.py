"""Environments as gateways have them: the built wheel, one inference runtime, nothing else."""

import hashlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]

# Runs the command line as its entry point does and leaves the names of all imported modules behind.
WITNESS = """
import atexit, json, os, sys
from pathlib import Path
def leave():
    Path(os.environ["EDGE_TSAD_MODULES"]).write_text(json.dumps(sorted(sys.modules)))
atexit.register(leave)
from edge_tsad.cli import main
sys.argv[0] = "edge-tsad"
main()
"""


@dataclass(frozen=True)
class Environment:
    """A Python with this project in it; ``command`` runs ``edge-tsad`` there."""

    python: Path
    modules: Path

    def popen(self, *arguments: str, **options: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.python), "-I", "-c", WITNESS, *arguments],
            env={**os.environ, "EDGE_TSAD_MODULES": str(self.modules)},
            text=True,
            **options,  # type: ignore[call-overload]
        )

    def run(self, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        process = self.popen(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate(timeout=timeout_s)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def imported(self) -> set[str]:
        """Top-level packages that the last command had imported when it ended."""
        return {name.partition(".")[0] for name in json.loads(self.modules.read_text())}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT],
        check=True,
        capture_output=True,
    )
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def environment(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Environment]:
    """Makes (once per name) the environment of ``constraints/<name>.txt`` with the wheel in it."""
    made: dict[str, Environment] = {}

    def make(name: str) -> Environment:
        if name not in made:
            made[name] = _make(name, wheel, tmp_path_factory.mktemp(f"environment-{name}"))
        return made[name]

    return make


def _make(name: str, wheel: Path, scratch: Path) -> Environment:
    pins = ROOT / "constraints" / f"{name}.txt"
    # The downloaded packages are kept between runs; the wheel is put in anew each time.
    folder = ROOT / "build" / "environments" / f"{name}-{_digest(pins)}"
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([*pip, "install", "--requirement", pins], check=True, capture_output=True)
        (folder / "ready").touch()
    subprocess.run(
        [*pip, "install", "--no-deps", "--force-reinstall", wheel], check=True, capture_output=True
    )
    return Environment(python, scratch / "modules.json")


def _digest(path: Path) -> str:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return hashlib.sha256(path.read_bytes() + version.encode()).hexdigest()[:12]


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real detector, hastily fitted to a sine, exported in both formats and both schemes."""
    from edge_tsad.training.fit import train
    from edge_tsad.training.series import read_csv
    from export.build import export_bundle

    folder = tmp_path_factory.mktemp("small")
    history = _sine_csv(folder / "history.csv", 2000)
    options = {"window": 64, "steps": 80, "batch": 8}
    model = train(read_csv(history), seed=0, options=options)
    path = folder / "small-1.0.0.tsad"
    export_bundle(model, path, name="small", version="1.0.0")
    return path


@pytest.fixture(scope="session")
def spiked_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sine of ``small_bundle`` with one plain fault in it: the sensor jumps far out."""
    return _sine_csv(tmp_path_factory.mktemp("spiked") / "spiked.csv", 600, fault=(300, 312))


def _sine_csv(path: Path, points: int, fault: tuple[int, int] | None = None) -> Path:
    k = np.arange(points)
    values = np.sin(2 * np.pi * k / 16) + 0.02 * np.random.default_rng(0).normal(size=points)
    if fault is not None:
        values[slice(*fault)] += 3.0
    path.write_text("\n".join(["level", *(f"{value:.5f}" for value in values)]) + "\n")
    return path
