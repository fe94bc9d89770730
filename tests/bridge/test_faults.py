"""Every durable step of a gateway's life × every fault: one valid bundle serves, and it is said.

The steps are announced by the code itself, before and after each: that is at every state and
between any two. `make test-faults` runs every pair and prints them, `make test` a seeded tenth.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from bridge.platter import Loss, Platter
from bridge.releases import HandClock, bring, device, prepare, release, serves, tries
from bridge.story import ByLines, Watched, expectations, memory, points, story

from edge_tsad.errors import EdgeTsadError
from firmware_bridge.machine import State

ALL = bool(os.environ.get("EDGE_TSAD_ALL_FAULTS"))
SEED = 20
POINTS = points()
EXPECTED = expectations()
DISK_KB = 400


class EndError(BaseException):
    """The end of the process; nothing that this program catches."""


def end() -> None:
    raise EndError


def live(gateway: object, clock: HandClock) -> tuple[set[str], BaseException | None]:
    """Live through the story; what may serve where it ended, and why it ended."""
    before, parts = "", story(gateway, clock)
    for after in EXPECTED:
        try:
            before = next(parts)
        except (EndError, EdgeTsadError) as e:
            return {before, after}, e
        assert before == after
    return {before}, None


def check_truth(root: Path, clock: HandClock, allowed: set[str]) -> str:
    """Compare what is there with what is said, and see that life goes on; returns what serves."""
    # A runtime may open the slot before the agent has come back.
    served = serves(root)
    assert served in allowed
    path = root / "state.json"
    written = State.read(path.read_bytes(), "state.json") if path.exists() else State()
    assert served in {written.serving, *(release.digest for release in written.committed)} | {""}
    gateway = device(root, clock)
    state, slot, problem = gateway.look()
    assert problem == ""
    assert slot == serves(root) == state.serving
    assert slot in allowed
    assert tries(root) == state.trying
    assert {f.stem for f in (root / "store").iterdir()} == state.kept
    assert not list(root.glob(".*"))
    if state.phase == "trial":
        gateway.rollback()
    bring(gateway, release(9))
    if gateway.look()[0].phase == "trial":
        gateway.confirm()
    assert serves(root) == release(9).digest
    return slot


def killed(number: int, root: Path) -> str:
    """SIGKILL of a real process."""
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            kill = partial(os.kill, os.getpid(), signal.SIGKILL)
            clock = HandClock()
            live(device(root, clock, witness=Watched(number, kill)), clock)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    clock = HandClock()
    allowed, _ = where(number)
    clock.monotonic_s += 1
    return check_truth(root, clock, allowed)


def where(number: int) -> tuple[set[str], str]:
    """What may serve where the story ends at a point; the point."""
    with tempfile.TemporaryDirectory(dir=memory()) as name:
        clock = HandClock()
        root = prepare(Path(name) / "gateway")
        return live(device(root, clock, witness=Watched(number, end)), clock)[0], POINTS[number]


def power_cut(number: int, root: Path, loss: Loss) -> str:
    """The machine is off at once; what was not synced is lost, all of it or a half."""
    platter, clock = Platter(root), HandClock()
    with platter.spinning():
        allowed, ended = live(device(root, clock, witness=Watched(number, end)), clock)
    assert isinstance(ended, EndError)
    clock.reboot()
    return check_truth(platter.image(root.with_name("image"), loss), clock, allowed)


def clock_jumps(number: int, root: Path, to_ns: int) -> str:
    """Something sets the wall clock; nothing changes by that."""
    clock = HandClock()

    def jump() -> None:
        clock.wall_ns = to_ns

    allowed, ended = live(device(root, clock, witness=Watched(number, jump)), clock)
    assert ended is None
    return check_truth(root, clock, allowed)


def line_is_cut(number: int, root: Path) -> str:
    """The answer to what is being done is lost; whoever asked comes back."""
    clock = HandClock()
    watched = Watched(number)
    gateway = ByLines(root, clock, watched)
    watched.act = gateway.cut
    allowed, ended = live(gateway, clock)
    assert ended is None
    assert gateway.cuts == 1
    return check_truth(root, clock, allowed)


def disk_is_full(number: int, root: Path) -> str:
    """Not a byte is left; then there is room again."""
    clock = HandClock()
    ballast = root.parent / "ballast"
    witness = Watched(number, partial(fill, ballast))
    allowed, ended = live(device(root, clock, witness=witness), clock)
    told_while_it_lasts(root, clock, allowed, ended, "no space is left")
    ballast.unlink()
    return check_truth(root, clock, allowed)


def disk_is_read_only(number: int, root: Path) -> str:
    """The file system is made read-only; then it can be written again."""
    clock, disk = HandClock(), root.parent.parent
    witness = Watched(number, partial(remount, disk, "ro"))
    try:
        allowed, ended = live(device(root, clock, witness=witness), clock)
        told_while_it_lasts(root, clock, allowed, ended, "read-only file system")
    finally:
        remount(disk, "rw")
    return check_truth(root, clock, allowed)


def told_while_it_lasts(
    root: Path, clock: HandClock, allowed: set[str], ended: BaseException | None, reason: str
) -> None:
    """The error names the cause; one valid bundle serves, and `status` tells of it."""
    assert ended is None or reason in str(ended)
    assert serves(root) in allowed
    state, slot, problem = device(root, clock).look()
    assert slot == serves(root)
    assert slot in allowed
    assert slot == state.serving or problem


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 4096):
            pass


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


FAULTS: dict[str, Callable[[int, Path], str]] = {
    "killed": killed,
    "power cut": partial(power_cut, loss="all"),
    "power cut, names stay": partial(power_cut, loss="contents"),
    "power cut, contents stay": partial(power_cut, loss="names"),
    "disk full": disk_is_full,
    "disk read-only": disk_is_read_only,
    "clock to 1970": partial(clock_jumps, to_ns=0),
    "clock to 2099": partial(clock_jumps, to_ns=4_070_908_800 * 10**9),
    "line cut": line_is_cut,
}
PAIRS = [(number, fault) for number in range(len(POINTS)) for fault in FAULTS]
CHOSEN = PAIRS if ALL else sorted(random.Random(SEED).sample(PAIRS, len(PAIRS) // 10))


@pytest.fixture(scope="module")
def small_disk() -> Iterator[Path | None]:
    """A disk of its own; None where none can be mounted."""
    with tempfile.TemporaryDirectory() as name:
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_KB}k", "tmpfs", name]
        mounted = (
            not os.geteuid()
            and not subprocess.run(command, check=False, capture_output=True).returncode
        )
        yield Path(name) if mounted else None
        if mounted:
            subprocess.run(["umount", "-l", name], check=True)


@pytest.mark.parametrize(
    ("number", "fault"), CHOSEN, ids=[f"{n}-{POINTS[n]}-{fault}" for n, fault in CHOSEN]
)
def test_one_valid_bundle_serves_and_it_is_said(
    number: int, fault: str, small_disk: Path | None, fault_table: dict[tuple[str, str], list[str]]
) -> None:
    on_disk = fault.startswith("disk")
    if on_disk and small_disk is None:
        pytest.skip("A SMALL DISK CANNOT BE MOUNTED: full and read-only disks are not tested")
    seen = fault_table.setdefault((POINTS[number], fault), [])
    seen.append("FAILED")
    with tempfile.TemporaryDirectory(dir=small_disk if on_disk else memory()) as name:
        served = FAULTS[fault](number, prepare(Path(name) / "gateway"))
    seen[-1] = served


def test_the_story_passes_every_kind_of_point() -> None:
    names = {"upload", "store", "active slot", "trial slot"}
    events = (
        "received", "verified", "staged", "self-tested", "trial", "committed", "rolled back",
        "refused",
    )  # fmt: skip
    names |= {f"record {event}" for event in events}
    assert set(POINTS) == {f"{when} {name}" for name in names for when in ("before", "after")}


def test_the_platter_forgets_what_was_not_synced(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "old").write_bytes(b"old")
    platter = Platter(root)
    with platter.spinning():
        (root / "old").write_bytes(b"new")
        (root / "other").write_bytes(b"other")
    assert {p.name: p.read_bytes() for p in platter.image(tmp_path / "a", "all").iterdir()} == {
        "old": b"old"
    }
    names = platter.image(tmp_path / "b", "contents")
    assert {p.name: p.read_bytes() for p in names.iterdir()} == {"old": b"old", "other": b""}
    contents = platter.image(tmp_path / "c", "names")
    assert {p.name: p.read_bytes() for p in contents.iterdir()} == {"old": b"new"}
