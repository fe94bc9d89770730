"""(c) The power is cut at any moment: only what was synced is there at the next start."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import promises
from faults.conftest import TESTS, Play, environment, few
from faults.disk import CALLS, Disk, File, calls
from faults.story import read_journal

CUTS = 600
SEED = 52

STRACE = shutil.which("strace")
pytestmark = pytest.mark.skipif(
    STRACE is None, reason="STRACE IS MISSING: power cuts are not tested (apt install strace)"
)


def recorded(folder: Path, mutant: str = "") -> Path:
    """Play the story once, every change of files written down."""
    assert STRACE
    log = folder / "strace.log"
    subprocess.run(
        [STRACE, "-f", "-xx", "-s", "10000000", "-e", f"trace={CALLS}", "-o", str(log),
         sys.executable, str(TESTS / "faults" / "story.py"), str(folder), mutant],
        check=True, env=environment(), timeout=300,
    )  # fmt: skip
    return log


class Cutter:
    """A recorded story, which can be cut off after any of its steps and played to its end."""

    def __init__(self, folder: Path, stage: Callable[[], Path], play: Play, mutant: str) -> None:
        self.folder, self.stage, self.play, self.mutant = folder, stage, play, mutant
        self.calls = list(calls(recorded(folder, mutant)))
        disk = self.disk()
        self.steps = [i for i, call in enumerate(self.calls) if disk.follow(call)]

    def disk(self) -> Disk:
        return Disk(self.folder)

    def cut(self, step: int, chance: random.Random | None) -> list[str]:
        """The broken promises when the power goes after that many steps."""
        target = self.stage()
        disk = self.disk()
        for call in self.calls[: self.steps[step] + 1]:
            disk.follow(call)
        disk.lay_out(target, chance)
        for name in ("journal", "broker"):  # who was promised something has power of his own
            file = disk.top.names.get(name)
            (target / name).write_bytes(bytes(file.content) if isinstance(file, File) else b"")
        status = self.play(target, None, self.mutant)
        problems = promises.broken(target) if status == 0 else [f"the start failed: {status}"]
        shutil.rmtree(target)
        return problems


@pytest.fixture
def cutter(stage: Callable[[], Path], play: Play) -> Iterator[Callable[[str], Cutter]]:
    yield lambda mutant: Cutter(stage(), stage, play, mutant)


def chances(seed: int, count: int, steps: int) -> Iterator[tuple[int, random.Random | None]]:
    """Moments, and for half of them how much of what was not synced is there by luck."""
    drawn = random.Random(seed)
    for i in range(count):
        yield drawn.randrange(steps), random.Random(drawn.random()) if i % 2 else None


@pytest.mark.timeout(3600)
def test_the_power_is_cut_anywhere(cutter: Callable[[str], Cutter]) -> None:
    story = cutter("")
    assert len(story.steps) > CUTS
    for step, chance in chances(SEED, few(CUTS), len(story.steps)):
        where = f"after step {step} of {len(story.steps)}: {story.calls[story.steps[step]].name}"
        assert story.cut(step, chance) == [], json.dumps([where, chance is None])
    print(f"{few(CUTS)} power cuts among {len(story.steps)} steps: nothing lost")


def test_the_syncs_that_are_reported_are_those_that_were_made(stage: Callable[[], Path]) -> None:
    folder = stage()
    made = [call for call in calls(recorded(folder)) if call.name in ("fsync", "fdatasync")]
    reported = sum(read_journal(folder / "journal")[-1]["syncs"].values())
    # a database that is begun, checkpointed or closed syncs a few times more
    assert reported <= len(made) <= 1.05 * reported + 20


@pytest.mark.parametrize(
    ("mutant", "loss"),
    [
        ("synchronous=OFF", "committed alert"),
        ("snapshot folder not synced", "snapshot"),
        ("segment folder not synced", "recording"),
        ("segment not synced", "recording"),
    ],
)
def test_a_missing_sync_is_noticed(cutter: Callable[[str], Cutter], mutant: str, loss: str) -> None:
    story = cutter(mutant)
    for number, (step, chance) in enumerate(chances(SEED, 60, len(story.steps)), 1):
        found = [problem for problem in story.cut(step, chance) if loss in problem]
        if found:
            print(f"mutant {mutant!r}: noticed by power cut {number}: {found[0]}")
            return
    raise AssertionError(f"{mutant}: no power cut shows it")
