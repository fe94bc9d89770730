"""What a candidate on trial must show, and what ends its trial."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from bridge.releases import (
    HandClock,
    bring,
    device,
    last,
    release,
    serves,
    stand_trial,
    tries,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_tsad.runtime.trial_report import REPORT
from edge_tsad.types import Now
from firmware_bridge.device import Device
from firmware_bridge.folder import Folder


def test_what_stands_its_trial_is_committed(gateway: Device, root: Path, clock: HandClock) -> None:
    bring(gateway, release(2), trial_s=30)
    begun_s = clock.monotonic_s
    clock.monotonic_s += 29
    stand_trial(root, clock, since_s=begun_s)
    gateway.recover()
    assert serves(root) == release(1).digest, "its time is not over"
    clock.monotonic_s += 5000  # nobody looked for long: what was seen in its time counts
    gateway.recover()
    assert (serves(root), tries(root)) == (release(2).digest, "")
    event, reason = last(gateway)
    assert event == "committed"
    assert reason.startswith("pump: 500 points, 0 alarms (active 0), 1 ms a window (active 1)")


BREACHES = {
    "alarms": ({"alarms": 3}, "pump: it raised 3 alarms in 500 points; the active .* allows 2"),
    "stuck": ({"alarms": 1, "over": 40}, "pump: 40 of 500 points were above its threshold, and 0"),
    "slow": ({"p99_ms": 251.0}, "pump: a window takes it 251 ms; 250 ms are allowed"),
    "memory": ({"memory_mb": 97.0}, "it took 97 MB more memory; 96 MB are allowed"),
    "failed": ({"problem": "it could not be run"}, "it could not be run"),
}


@pytest.mark.parametrize("case", BREACHES)
def test_a_bound_that_is_not_kept_ends_a_trial_at_once(
    case: str, gateway: Device, root: Path, clock: HandClock
) -> None:
    changes, reason = BREACHES[case]
    bring(gateway, release(2), trial_s=30)
    clock.monotonic_s += 3
    stand_trial(root, clock, **changes)
    gateway.recover()
    assert (serves(root), tries(root)) == (release(1).digest, "")
    assert last(gateway)[0] == "rolled back"
    assert re.match(reason, last(gateway)[1])


@pytest.mark.parametrize(
    "changes",
    [
        {"alarms": 5, "active_alarms": 4},  # it was an anomaly: the active one saw it too
        {"alarms": 12, "expected": 5.0},
        {"p99_ms": 900.0, "windows": 5},  # too few to say anything
        {"p99_ms": 900.0, "between_ms": 0.0},  # data without a rate
    ],
)
def test_bounds_leave_room_for_chance(
    changes: dict[str, float], gateway: Device, root: Path, clock: HandClock
) -> None:
    bring(gateway, release(2), trial_s=30)
    begun_s, clock.monotonic_s = clock.monotonic_s, clock.monotonic_s + 30
    stand_trial(root, clock, since_s=begun_s, **changes)
    gateway.recover()
    assert serves(root) == release(2).digest


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"points": 0}, "it has scored no point of pump yet"),
        ({"since_s": 116.0}, "it ran for 14 s of it only"),
        ({"since_s": 99.0}, "no runtime has reported on it"),
        ({"boot_id": "boot-7"}, "no runtime has reported on it"),
        ({"candidate": "0" * 64}, "no runtime has reported on it"),
        ({"streams": ()}, "it has scored no point of any stream yet"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_too_little_evidence_commits_nothing(
    changes: dict[str, object], reason: str, gateway: Device, root: Path, clock: HandClock
) -> None:
    bring(gateway, release(2), trial_s=30)
    clock.monotonic_s += 30
    stand_trial(root, clock, **{"since_s": 100.0, **changes})
    gateway.recover()
    assert serves(root) == release(1).digest
    assert last(gateway) == ("rolled back", f"it was not confirmed within 30 s: {reason}")


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=200) | st.just(b'{"candidate":'))
def test_a_report_that_is_none_is_as_if_there_were_none(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(Path(name))
        folder.prepare()
        (Path(name) / REPORT).write_bytes(data)
        assert folder.report("0" * 64) is None


@pytest.mark.parametrize("uptime_s", [1.0, 150.0], ids=["just now", "long ago"])
def test_a_restart_ends_a_trial(
    uptime_s: float, gateway: Device, root: Path, clock: HandClock
) -> None:
    bring(gateway, release(2))
    clock.reboot()
    clock.monotonic_s = uptime_s
    gateway.recover()
    assert serves(root) == release(1).digest
    assert tries(root) == ""
    assert last(gateway) == ("rolled back", "the gateway was restarted before it was confirmed")


def test_a_clock_that_jumps_changes_no_trial(gateway: Device, root: Path) -> None:
    class Jumping(HandClock):
        def now(self) -> Now:
            return Now(self.monotonic_s, wall_ns=-(10**18), boot_id="boot-1", synchronised=False)

    bring(gateway, release(2))
    woken_in_1938 = device(root, Jumping())
    assert woken_in_1938.look()[0].phase == "trial"
    woken_in_1938.confirm()
    assert serves(root) == release(2).digest
