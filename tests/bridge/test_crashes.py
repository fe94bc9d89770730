"""Cut off at every durable step, the gateway serves one valid bundle and says which."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
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
    stand_trial,
    tries,
)

from edge_tsad.errors import BundleError, EdgeTsadError
from firmware_bridge.device import Device
from firmware_bridge.machine import State

ALL = bool(os.environ.get("EDGE_TSAD_ALL_FAULTS"))
SEED = 20


class CutError(BaseException):
    """The end of the process; nothing that this program catches."""


class Cutter:
    """Passes ``after`` points and then fails."""

    def __init__(self, after: int = 10**9) -> None:
        self.left = after
        self.passed: list[str] = []

    def __call__(self, point: str) -> None:
        self.passed.append(point)
        self.left -= 1
        if self.left < 0:
            raise CutError(point)


def story(gateway: Device, clock: HandClock) -> Iterator[str]:
    """Everything that a gateway goes through; yields the digest that serves after each part."""
    first, second, third = (release(i).digest for i in (1, 2, 3))
    bring(gateway, release(1))
    yield first
    bring(gateway, release(2))
    yield first
    gateway.confirm()
    yield second
    bring(gateway, release(3), trial_s=30)
    yield second
    clock.monotonic_s += 31
    gateway.recover()
    yield second
    bring(gateway, release(3), trial_s=30)
    yield second
    clock.monotonic_s += 31
    stand_trial(gateway.folder.root, clock, since_s=clock.monotonic_s - 31)
    gateway.recover()
    yield third
    gateway.rollback()
    yield second
    bring(gateway, release(3))
    yield second
    gateway.rollback()
    yield second
    gateway.rollback()
    yield first
    try:
        bring(gateway, release(4, key=None))
    except EdgeTsadError:
        yield first
    gateway.rollback("1.2")
    yield second


def folder() -> str:
    """Where syncing is cheap, if there is such a place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=folder()) as name:
        yield prepare(Path(name) / "gateway")


def points() -> list[str]:
    """Every point of the story, in its order."""
    with tempfile.TemporaryDirectory(dir=folder()) as name:
        cutter, clock = Cutter(), HandClock()
        for _ in story(device(prepare(Path(name)), clock, witness=cutter), clock):
            pass
    return cutter.passed


POINTS = points()
EVERY = list(enumerate(POINTS))
TENTH = EVERY if ALL else sorted(random.Random(SEED).sample(EVERY, max(1, len(EVERY) // 10)))


def served_around(clock: HandClock, root: Path, cutter: Cutter) -> tuple[str, str]:
    """Run until cut off; what served after the last part, and what would have after the next."""
    gateway, before = device(root, clock, witness=cutter), ""
    expected = list(map(str, expectations()))
    parts = story(gateway, clock)
    for number in range(len(expected)):
        try:
            before = next(parts)
        except CutError:
            return before, expected[number]
    return before, before


def expectations() -> list[str]:
    """The digests that the story yields."""
    first, second, third = (release(i).digest for i in (1, 2, 3))
    return [
        first, first, second, second, second, second, third, second, second, second, first, first,
        second,
    ]  # fmt: skip


def test_the_story_passes_every_kind_of_point() -> None:
    names = {"upload", "store", "active slot", "trial slot"}
    events = (
        "received", "verified", "staged", "self-tested", "trial", "committed", "rolled back",
        "refused",
    )  # fmt: skip
    names |= {f"record {event}" for event in events}
    assert set(POINTS) == {f"{when} {name}" for name in names for when in ("before", "after")}


@pytest.mark.parametrize(("number", "point"), EVERY, ids=[f"{n}-{p}" for n, p in EVERY])
@pytest.mark.parametrize("boot", [False, True], ids=["killed", "rebooted"])
def test_cut_off_anywhere(number: int, point: str, boot: bool, root: Path) -> None:
    clock = HandClock()
    before, after = served_around(clock, root, Cutter(number))
    # A runtime that opens the slot before the agent has come back finds the old or the new one,
    # and the new one only after its deadline was written down.
    assert serves(root) in {before, after}
    path = root / "state.json"
    written = State.read(path.read_bytes(), "state.json") if path.exists() else State()
    assert serves(root) in {before, written.serving}
    if boot:
        clock.reboot()
    check_truth(root, clock, {before, after})


def check_truth(root: Path, clock: HandClock, allowed: set[str]) -> None:
    """Recover, and compare what is said with what is there."""
    gateway = device(root, clock)
    state, slot, problem = gateway.look()
    assert problem == ""
    assert slot == serves(root) == state.serving
    assert tries(root) == state.trying
    assert slot in allowed
    assert {f.stem for f in (root / "store").iterdir()} == state.kept
    assert not list(root.glob(".*"))
    written = (root / "state.json").read_bytes() if (root / "state.json").exists() else b""
    gateway.recover()
    assert not written or (root / "state.json").read_bytes() == written
    # and life goes on: the next update comes through, whatever was left half done
    if state.phase == "trial":
        gateway.rollback()
    bring(gateway, release(9))
    if gateway.look()[0].phase == "trial":
        gateway.confirm()
    assert serves(root) == release(9).digest


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from bridge.releases import HandClock, device
from bridge.test_crashes import story
left = int(sys.argv[2])
def witness(point):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
clock = HandClock()
for _ in story(device(Path(sys.argv[1]), clock, witness=witness), clock):
    pass
"""


@pytest.mark.parametrize(("number", "point"), TENTH, ids=[f"{n}-{p}" for n, p in TENTH])
def test_killed_for_real(number: int, point: str, root: Path, tmp_path: Path) -> None:
    tests = str(Path(__file__).parents[1])
    # The child's keys are others than ours: it trusts its own.
    code = KILLED.replace("clock = HandClock()", "from bridge import releases\n"
                          "releases.prepare(Path(sys.argv[1]))\nclock = HandClock()")  # fmt: skip
    child = subprocess.run(
        [sys.executable, "-c", code, str(root), str(number), tests], check=False, timeout=120
    )
    assert child.returncode == -signal.SIGKILL
    prepare(root)
    state, slot, problem = device(root).look()
    assert problem == ""
    assert slot == serves(root) == state.serving
    assert not list(root.glob(".*"))


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
