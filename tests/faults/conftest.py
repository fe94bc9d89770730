"""A server of stories, a place where syncing is cheap, and how many trials there are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import story
from oracles import tiny_bundle

from edge_tsad.types import PolicySettings

ALL = bool(os.environ.get("EDGE_TSAD_ALL_FAULTS"))
TESTS = Path(__file__).parents[1]
POLICY = PolicySettings(minimum_duration=2, resolve_after=3, update_every=2)

Play = Callable[..., int]


def few(trials: int) -> int:
    """All of them, or a tenth in a quick run."""
    return trials if ALL else trials // 10


def environment() -> dict[str, str]:
    """For a child that imports this project and its tests."""
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def play() -> Iterator[Play]:
    """Plays the story in a folder, in a process of its own; returns its exit status."""
    server = subprocess.Popen(
        [sys.executable, str(TESTS / "faults" / "story.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip

    def ask(folder: Path, kill: list[Any] | None = None, mutant: str = "") -> int:
        assert server.stdin and server.stdout
        text = json.dumps({"folder": str(folder), "kill": kill, "mutant": mutant})
        server.stdin.write(text + "\n")
        server.stdin.flush()
        return int(server.stdout.readline())

    yield ask
    server.communicate(timeout=30)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle.make(tmp_path_factory.mktemp("bundle"), policy=POLICY)


@pytest.fixture
def stage(bundle: Path) -> Iterator[Callable[[], Path]]:
    """Makes fresh folders, where syncing is cheap if there is such a place."""
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as name:
        numbers = iter(range(1_000_000))
        yield lambda: story.prepare(Path(name) / str(next(numbers)), bundle)
