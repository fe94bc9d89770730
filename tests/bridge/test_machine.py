"""Any sequence of events and crashes: the rules hold, in values alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from bridge.releases import HandClock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_tsad.errors import BundleError, EdgeTsadError
from firmware_bridge.folder import Folder
from firmware_bridge.machine import RESTING, UNDER_WAY, State
from firmware_bridge.records import Release
from firmware_bridge.recovery import Found, recover
from firmware_bridge.verdict import Verdict

KEEP = 3


def made(number: int) -> Release:
    digest = f"{number:064x}"
    return Release(digest, digest[::-1], "pump", f"1.{number}", number, number // 2)


class Updates(RuleBasedStateMachine):
    """``disk`` and ``slot`` are what survives; a crash keeps one of the two from following."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.disk, self.slot, self.trial_slot = State(), "", ""
        self.files: set[str] = set()
        self.served_once = False
        self.verdict = Verdict()

    def move(self, new: State, crash: str) -> None:
        """As a device does it: state, then slot; ``crash`` says before which of them it ends."""
        before = self.disk
        if crash != "record":
            self.disk = new
            assert new.floor >= before.floor
            if new.floor > before.floor:
                assert new.history[-1].event == "committed"
            if crash != "active slot":
                self.slot = new.serving
                if crash != "trial slot":
                    self.trial_slot = new.trying
        if crash:
            self.restart()

    def restart(self) -> None:
        found = self.recovered(self.disk, self.trial_slot)
        assert self.recovered(found, found.trying) == found, "recovering twice is recovering once"
        self.disk, self.slot, self.trial_slot = found, found.serving, found.trying
        self.files &= found.kept

    def recovered(self, state: State, trying: str) -> State:
        found = Found(trying, self.files.__contains__, lambda: self.verdict, self.clock.now(), KEEP)
        return recover(state, found)

    crashes = st.sampled_from(["", "", "", "record", "active slot", "trial slot"])

    @precondition(lambda self: self.disk.phase in RESTING)
    @rule(number=st.integers(1, 12), crash=crashes)
    def receive(self, number: int, crash: str) -> None:
        self.move(self.disk.received(made(number).transfer, self.clock.now()), crash)

    @precondition(lambda self: self.disk.phase == "received")
    @rule(crash=crashes)
    def verify(self, crash: str) -> None:
        number = int(self.disk.transfer[::-1], 16)
        now = self.clock.now()
        if number < self.disk.floor:
            self.move(self.disk.refused("older than allowed", now), crash)
        else:
            self.move(self.disk.verified(made(number), now), crash)

    @precondition(lambda self: self.disk.phase == "verified")
    @rule(crash=crashes)
    def stage(self, crash: str) -> None:
        assert self.disk.candidate
        self.files.add(self.disk.candidate.digest)
        self.move(self.disk.staged(self.clock.now()), crash)

    @precondition(lambda self: self.disk.phase == "staged")
    @rule(crash=crashes, good=st.booleans())
    def test(self, crash: str, good: bool) -> None:
        now = self.clock.now()
        new = self.disk.self_tested("fine", now) if good else self.disk.refused("bad", now)
        self.move(new, crash)

    @precondition(lambda self: self.disk.phase == "self-tested")
    @rule(crash=crashes)
    def try_it(self, crash: str) -> None:
        self.move(self.disk.tried(60, KEEP, self.clock.now()), crash)

    @precondition(lambda self: self.disk.phase == "trial")
    @rule(crash=crashes)
    def confirm(self, crash: str) -> None:
        self.move(self.disk.confirmed("asked", KEEP, self.clock.now()), crash)

    @precondition(lambda self: self.disk.phase == "trial")
    @rule(problem=st.booleans(), missing=st.booleans())
    def its_time_is_over(self, problem: bool, missing: bool) -> None:
        candidate = self.disk.trying
        self.clock.monotonic_s += 61
        self.verdict = Verdict("too slow" * problem, "no report" * missing, "all well")
        self.restart()
        assert self.disk.phase == ("rolled back" if problem or missing else "committed")
        assert (self.disk.current == candidate) == (not problem and not missing)
        self.verdict = Verdict()

    @precondition(lambda self: self.disk.phase == "trial")
    @rule(crash=crashes)
    def give_up(self, crash: str) -> None:
        self.move(self.disk.returned("asked", self.clock.now()), crash)

    @precondition(lambda self: self.disk.phase in RESTING)
    @rule(number=st.integers(1, 12), crash=crashes)
    def roll_back(self, number: int, crash: str) -> None:
        target = made(number)
        try:
            new = self.disk.chosen(target, "asked", self.clock.now())
        except EdgeTsadError:
            assert target not in self.disk.committed or number < self.disk.floor
        else:
            self.move(new, crash)

    @rule(seconds=st.floats(0.1, 100), boot=st.booleans())
    def time_passes(self, seconds: float, boot: bool) -> None:
        self.clock.monotonic_s += seconds
        if boot:
            self.clock.reboot()
            self.restart()

    @precondition(lambda self: len(self.disk.committed) > 1)
    @rule(which=st.integers(0, 10))
    def a_file_rots(self, which: int) -> None:
        digests = [release.digest for release in self.disk.committed]
        good = [digest for digest in digests if digest in self.files]
        if len(good) > 1:
            self.files.discard(good[which % len(good)])
            self.restart()

    @invariant()
    def exactly_one_valid_bundle_serves(self) -> None:
        assert (self.slot, self.trial_slot) == (self.disk.serving, self.disk.trying)
        assert not self.trial_slot or self.trial_slot in self.files
        self.served_once |= bool(self.slot)
        assert bool(self.slot) == self.served_once, "once there is one, there always is one"
        if self.slot:
            assert self.slot in self.files
            release = self.disk.release(self.slot)
            assert release
            assert release.counter >= self.disk.floor

    @invariant()
    def what_is_written_is_read(self) -> None:
        assert State.read(self.disk.to_json(), "state.json") == self.disk
        assert len(self.disk.committed) <= KEEP
        assert not self.disk.current or self.disk.release(self.disk.current)

    @invariant()
    def the_last_line_tells_the_truth(self) -> None:
        if not self.disk.history:
            return
        event = self.disk.history[-1].event
        if self.disk.phase in UNDER_WAY or self.disk.phase == "trial":
            assert event == self.disk.phase
        else:
            assert event in ("committed", "rolled back", "refused", "interrupted")


TestUpdates = Updates.TestCase
TestUpdates.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_state_that_contradicts_itself_is_refused() -> None:
    clock = HandClock()
    state = State().received("ab", clock.now())
    for changes in ({"phase": "empty"}, {"phase": "trial"}, {"phase": "staged"}, {"current": "c"}):
        with pytest.raises(BundleError):
            dataclasses.replace(state, **changes)
    table = state.to_json().replace(b'"received"', b'"recieved"')
    with pytest.raises(BundleError, match=r"state.json.*recieved"):
        State.read(table, "state.json")


def test_the_longest_history_can_be_read_again(tmp_path: Path) -> None:
    state, now = State(), HandClock().now()
    for number in range(150):
        state = state.received(made(number).transfer, now)
        state = state.refused("🛑" * 2000 + "\udc80" if number % 2 else "\udc80", now)
    folder = Folder(tmp_path)
    folder.save(state)
    assert folder.load() == state
    assert len(state.history) == 200
    assert state.history[-1].number == 300


@pytest.mark.parametrize("step", ["verified", "staged", "self_tested", "tried", "returned"])
def test_no_step_can_be_skipped(step: str) -> None:
    now = HandClock().now()
    arguments = {
        "verified": (made(1), now), "staged": (now,), "self_tested": ("", now),
        "tried": (60, KEEP, now), "returned": ("", now),
    }  # fmt: skip
    with pytest.raises(BundleError, match="cannot follow on 'empty'"):
        getattr(State(), step)(*arguments[step])
