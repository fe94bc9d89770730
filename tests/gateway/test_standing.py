"""A silence ends, whatever the clock does; what cannot be stored has not happened."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_tsad.runtime.announcing import Announcer
from edge_tsad.runtime.outbox import Bounds, Outbox
from edge_tsad.runtime.payload import AlertIdentity, pack
from edge_tsad.runtime.standing import Standing
from edge_tsad.types import NANOSECONDS, Now

WALL_NS = 1_800_000_000 * NANOSECONDS
HOUR_S = 3600.0


def at(seconds: float, wall_s: float | None = None, *, synchronised: bool = True) -> Now:
    """So many seconds after boot, and so many on the wall clock."""
    wall = seconds if wall_s is None else wall_s
    return Now(seconds, WALL_NS + round(wall * NANOSECONDS), "boot", synchronised)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path / "o.db", Bounds(), at(0))
    yield box
    box.close()


@pytest.mark.parametrize(
    ("now", "over"),
    [
        (at(HOUR_S - 1), False),
        (at(HOUR_S), True),
        (at(HOUR_S, -1e9), True),  # the clock was set back: powered-on time counts
        (at(5, HOUR_S), True),  # it was set right, or the machine slept
        (at(5, HOUR_S, synchronised=False), False),  # nobody believes it
        (at(5, -1e9, synchronised=False), False),
    ],
)
def test_a_silence_ends_by_the_clock_or_by_powered_on_time(
    outbox: Outbox, now: Now, *, over: bool
) -> None:
    standing = Standing("s", outbox)
    standing.set_silence(HOUR_S, at(0))
    again = Standing("s", outbox)
    assert again.silence == standing.silence is not None
    again.advance(now)
    assert (again.silence is None) == over
    assert (Standing("s", outbox).silence is None) == over  # its end is stored, too


def test_what_cannot_be_stored_has_not_happened(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    standing = Standing("s", outbox)
    standing.set_silence(HOUR_S, at(0))
    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "keep", full)
        for step in (standing.set_silence, standing.set_sensitivity):
            with pytest.raises(sqlite3.Error):
                step(2.0, at(1))
        assert standing.silence and standing.sensitivity is None
        standing.advance(at(HOUR_S))
        assert standing.silence is None
    assert Standing("s", outbox).silence is not None  # which ends in the same way


def test_damaged_decisions_are_said_and_left(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    for data in (b"{", b"[]", b'{"sensitivity": "high"}', b'{"silence": {"until_ns": 1}}'):
        outbox.keep("s/standing", data, at(0))
        assert Standing("s", outbox).silence is None
    assert caplog.text.count("what was decided about it is not used") == 4


STEPS = st.lists(st.sampled_from(["new", "update", "end", "silence", "speak", "fail", "crash"]))


@settings(deadline=None, max_examples=50)
@given(steps=STEPS)
def test_what_is_told_is_told_whole(steps: list[str], tmp_path_factory: Any) -> None:
    outbox = Outbox(tmp_path_factory.mktemp("box") / "o.db", Bounds(), at(0))
    life = Life(outbox)
    for step in [*steps, "speak"]:
        life.take(step)
    rows = outbox.pending(limit=10_000)
    outbox.close()
    # Whatever is silenced, fails or crashes: no number is missing, and every alert that is told
    # begins with its only "new" and has nothing after its "end".
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
    told: dict[str, list[str]] = {}
    for message in (json.loads(row.payload) for row in rows):
        told.setdefault(message["id"], []).append(message["type"])
    for kinds in told.values():
        assert kinds[0] == "new" and kinds.count("new") == 1
        assert "end" not in kinds[:-1]


class Life:
    """An announcer through silences, full disks and crashes."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.kept: dict[str, Any] = {}  # as it was committed last
        self.announcer = Announcer("s", outbox, {})
        self.silenced = False

    def take(self, step: str) -> None:
        if step == "crash":
            self.announcer = Announcer("s", self.outbox, self.kept)
        elif step in ("silence", "speak"):
            self.silenced = step == "silence"
        if not self.silenced:
            self.announcer.tell()
        if step == "fail" and self.announcer.id:
            self.add("update")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Outbox, "commit", self.fail)
                self.store()
            return
        if step in ("new", "update", "end") and (step == "new") == (not self.announcer.id):
            self.add(step)
        self.store()

    def add(self, kind: str) -> None:
        def write(_: dict[str, Any], identity: AlertIdentity) -> bytes:
            return pack({"id": identity.id, "type": kind, "seq": identity.seq, "channels": []})

        self.announcer.add(kind, write, silenced=self.silenced)

    def store(self) -> None:
        tried: list[dict[str, Any]] = []

        def state() -> bytes:
            tried.append(self.announcer.facts())
            return b""

        self.announcer.commit(state, at(0))
        if tried and not self.announcer.failing:
            self.kept = tried[0]

    @staticmethod
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")
