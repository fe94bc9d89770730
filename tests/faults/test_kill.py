"""(a) SIGKILL at every named step of outbox, snapshots, history and delivery."""

from __future__ import annotations

import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import promises, story
from faults.conftest import Play, few

TRIALS = 600
SEED = 51


def points(play: Play, stage: Callable[[], Path]) -> Counter[str]:
    """How often an undisturbed story passes each point."""
    folder = stage()
    assert play(folder) == 0 and promises.broken(folder) == []
    passed: Counter[str] = Counter(story.read_journal(folder / "journal")[-1]["points"])
    shutil.rmtree(folder)
    return passed


def killed_twice(play: Play, folder: Path, chance: random.Random, passed: Counter[str]) -> int:
    """Two lives that end at points drawn by ``chance``, then one to the end; how many died."""
    died = 0
    for _ in range(2):
        name = chance.choice(sorted(passed))
        status = play(folder, [name, chance.randint(1, passed[name])])
        assert status in (0, -signal.SIGKILL)
        died += status != 0
    assert play(folder) == 0
    return died


def test_the_story_passes_every_kind_of_point(play: Play, stage: Callable[[], Path]) -> None:
    around = [
        "commit", "settle", "prune", "publish", "begin snapshot", "rename snapshot",
        "delete segment", "sync snapshot", "sync segment", "sync folder data",
        "sync folder state", "sync folder pump",
    ]  # fmt: skip
    inside = [
        "BEGIN", "INSERT INTO alerts", "REPLACE INTO streams", "UPDATE meta", "COMMIT",
        "UPDATE alerts", "DELETE FROM alerts",
    ]  # fmt: skip
    expected = {f"{when} {what}" for what in around for when in ("before", "after")}
    expected |= {f"sql {what}" for what in inside} | {"half a block"}
    assert expected <= set(points(play, stage))


@pytest.mark.timeout(3600)
def test_killed_at_every_point(play: Play, stage: Callable[[], Path]) -> None:
    passed = points(play, stage)
    chance = random.Random(SEED)
    # every point at its first passage, in the full run, and then others by chance
    trials = [[name, 1] for name in sorted(passed)]
    while len(trials) < TRIALS:
        name = chance.choice(sorted(passed))
        trials.append([name, chance.randint(1, passed[name])])
    if few(TRIALS) < TRIALS:
        trials = chance.sample(trials, few(TRIALS))
    died = 0
    for name, number in trials:
        folder = stage()
        status = play(folder, [name, number])
        died += status == -signal.SIGKILL
        assert status in (0, -signal.SIGKILL)
        assert play(folder) == 0
        assert promises.broken(folder) == [], f"killed at {name}, passage {number}"
        shutil.rmtree(folder)
    print(f"killed {died} of {len(trials)} processes, at {len(passed)} points: nothing lost")
    assert died > 0.9 * len(trials)  # a point may be passed less often by chance


@pytest.mark.timeout(3600)
def test_killed_again_and_again(play: Play, stage: Callable[[], Path]) -> None:
    passed = points(play, stage)
    chance = random.Random(SEED + 1)
    died = 0
    for _ in range(few(100)):
        folder = stage()
        died += killed_twice(play, folder, chance, passed)
        assert promises.broken(folder) == []
        shutil.rmtree(folder)
    assert died


@pytest.mark.parametrize("mutant", ["state not committed", "settled too early"])
def test_a_broken_program_is_noticed(play: Play, stage: Callable[[], Path], mutant: str) -> None:
    passed = points(play, stage)
    for name in ("before publish", "after commit"):
        for number in range(1, passed[name], 3):
            folder = stage()
            play(folder, [name, number], mutant)
            assert play(folder, None, mutant) == 0
            if found := promises.broken(folder):
                print(f"mutant {mutant!r}: noticed, killed {name}, passage {number}: {found[0]}")
                return
    raise AssertionError("the suite does not notice it")
