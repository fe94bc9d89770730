"""Disks that are full or read-only, at the steps where it matters most."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bridge.releases import (
    HandClock,
    bring,
    device,
    prepare,
    release,
    serves,
    tries,
)
from bridge.story import memory

from edge_tsad.errors import BundleError, EdgeTsadError


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=memory()) as name:
        yield prepare(Path(name) / "gateway")


def refuse(name: str) -> Callable[[str], None]:
    """A witness under which a durable step fails as on a full disk."""

    def witness(point: str) -> None:
        if point == f"before {name}":
            raise OSError(28, "No space left on device")

    return witness


@pytest.mark.parametrize("name", ["upload", "store", "trial slot"])
def test_no_space_at_a_step(name: str, root: Path) -> None:
    clock = HandClock()
    bring(device(root, clock), release(1))
    full = device(root, clock, witness=refuse(name))
    with pytest.raises(EdgeTsadError, match="no space is left on the device"):
        bring(full, release(2))
    state, slot, problem = device(root, clock).look()
    assert (slot, problem) == (release(1).digest, "")
    assert serves(root) == slot
    assert state.phase in ("committed", "rolled back")
    bring(device(root, clock), release(2))
    assert tries(root) == release(2).digest


def test_a_rollback_that_cannot_be_written_down_happens_all_the_same(root: Path) -> None:
    def witness(point: str) -> None:
        if point == "before record rolled back":
            raise BundleError("no space is left on the device")

    clock = HandClock()
    bring(device(root, clock), release(1))
    bring(device(root, clock), release(2))
    full = device(root, clock, witness=witness)
    with pytest.raises(BundleError, match="no space"):
        full.rollback()
    _, slot, problem = full.look()
    assert slot == serves(root) == release(1).digest
    assert tries(root) == "", "the trial ends all the same"
    assert "no space" in problem
    state, slot, problem = device(root, clock).look()
    assert (state.phase, slot, problem) == ("rolled back", release(1).digest, "")


def mount(where: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "small"
    where.mkdir()
    if os.geteuid() or not mount(where, "size=160k"):
        pytest.skip("A SMALL DISK CANNOT BE MOUNTED: full and read-only disks are only injected")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


def fill(where: Path) -> Path:
    """Use up every byte."""
    ballast = where / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 512):
                pass
        except OSError:
            pass
    return ballast


def test_a_really_full_disk(small_disk: Path) -> None:
    root, clock = prepare(small_disk / "gateway"), HandClock()
    gateway = device(root, clock)
    bring(gateway, release(1))
    ballast = fill(small_disk)
    with pytest.raises(EdgeTsadError, match="no space is left"):
        bring(gateway, release(2))
    assert serves(root) == release(1).digest
    ballast.unlink()
    bring(gateway, release(2))
    fill(small_disk)
    clock.monotonic_s += 601  # nobody confirms, and nothing can be written
    _, slot, problem = gateway.look()
    assert slot == serves(root) == release(1).digest
    assert tries(root) == "", "the trial ends all the same"
    assert "no space is left" in problem
    ballast.unlink()
    state, slot, problem = gateway.look()
    assert (state.phase, slot, problem) == ("rolled back", release(1).digest, "")


def test_a_read_only_disk_tells_the_truth(small_disk: Path) -> None:
    root, clock = prepare(small_disk / "gateway"), HandClock()
    gateway = device(root, clock)
    bring(gateway, release(1))
    bring(gateway, release(2))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    state, slot, problem = gateway.look()
    assert (state.phase, slot) == ("trial", release(1).digest)
    assert "read-only file system" in problem
    for act in (gateway.confirm, gateway.rollback, lambda: bring(gateway, release(3))):
        with pytest.raises(EdgeTsadError, match="read-only file system"):
            act()
    assert (serves(root), tries(root)) == (release(1).digest, release(2).digest)
