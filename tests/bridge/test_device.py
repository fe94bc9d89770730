"""From a received file to a committed slot, and everything that is refused on the way."""

from __future__ import annotations

import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bridge.releases import (
    FOREIGN,
    KEY,
    HandClock,
    Made,
    bring,
    device,
    prepare,
    release,
    serves,
    stand_trial,
    tries,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_tsad.bundle import Bounds
from edge_tsad.errors import BackendError, BundleError, EdgeTsadError, SignatureError
from edge_tsad.keys import SigningKey
from edge_tsad.runtime.trial_report import REPORT
from edge_tsad.signing import KeySet, sign_keys
from edge_tsad.types import Channel, Now
from firmware_bridge.device import Device
from firmware_bridge.folder import Folder
from firmware_bridge.selftest import run_self_test


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return prepare(tmp_path / "gateway")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def gateway(root: Path, clock: HandClock) -> Device:
    """A gateway on which release 1 is committed."""
    made = device(root, clock)
    bring(made, release(1))
    return made


def last(gateway: Device) -> tuple[str, str]:
    entry = gateway.look()[0].history[-1]
    return entry.event, entry.reason


def test_the_first_bundle_is_committed_after_its_self_test(gateway: Device, root: Path) -> None:
    state, slot, problem = gateway.look()
    assert (state.phase, slot, problem) == ("committed", release(1).digest, "")
    assert serves(root) == release(1).digest
    events = [entry.event for entry in state.history]
    assert events == ["received", "verified", "staged", "self-tested", "committed"]
    assert "none to try it beside" in state.history[-1].reason
    assert (root / "active.tsad").stat().st_mode & 0o777 == 0o644, "the runtime is another user"


def test_the_next_one_is_tried_beside_it_and_counts_when_confirmed(
    gateway: Device, root: Path, clock: HandClock
) -> None:
    bring(gateway, release(2, 2))
    state, slot, problem = gateway.look()
    assert (state.phase, slot, problem) == ("trial", release(1).digest, "")
    assert (serves(root), tries(root)) == (release(1).digest, release(2, 2).digest)
    assert state.floor == 0, "the floor rises only on commit"
    clock.monotonic_s += 599
    gateway.confirm(release(2, 2).digest)
    state, slot, _ = gateway.look()
    assert (state.phase, slot, state.floor) == ("committed", release(2, 2).digest, 2)
    assert (serves(root), tries(root)) == (slot, "")
    gateway.confirm(release(2, 2).digest)  # a repeated request does no harm


def test_unconfirmed_it_goes_and_says_so(gateway: Device, root: Path, clock: HandClock) -> None:
    bring(gateway, release(2), trial_s=30)
    clock.monotonic_s += 30
    gateway.recover()
    assert serves(root) == release(1).digest
    assert tries(root) == ""
    reason = "it was not confirmed within 30 s: no runtime has reported on it"
    assert last(gateway) == ("rolled back", reason)
    with pytest.raises(BundleError, match=r"not on trial any more; tiny-1.1 serves .*30 s"):
        gateway.confirm(release(2).digest)
    bring(gateway, release(2))  # an operator may try it again
    assert tries(root) == release(2).digest


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


def test_rollback_ends_a_trial_and_chooses_among_committed(gateway: Device, root: Path) -> None:
    bring(gateway, release(2))
    gateway.rollback()
    assert serves(root) == release(1).digest
    for counter in (2, 3):
        bring(gateway, release(counter))
        gateway.confirm()
    gateway.rollback()
    assert serves(root) == release(2).digest
    gateway.rollback("1.3")
    assert serves(root) == release(3).digest
    gateway.rollback(release(1).digest[:10])
    assert serves(root) == release(1).digest
    with pytest.raises(BundleError, match="no earlier bundle"):
        gateway.rollback()
    with pytest.raises(BundleError, match=r"'9' is none of .*tiny-1.1 .*tiny-1.2 .*tiny-1.3"):
        gateway.rollback("9")


def test_below_the_floor_there_is_no_way_back(gateway: Device, root: Path) -> None:
    bring(gateway, release(5, 5))
    gateway.rollback()
    assert gateway.look()[0].floor == 0, "an unconfirmed bundle raises nothing"
    bring(gateway, release(5, 5))
    gateway.confirm()
    with pytest.raises(BundleError, match="no earlier bundle"):
        gateway.rollback()
    with pytest.raises(BundleError, match="none of the bundles"):
        gateway.rollback("1.1")
    with pytest.raises(SignatureError, match="counter is 1, the least accepted here is 5"):
        bring(gateway, release(1))
    assert serves(root) == release(5, 5).digest


def altered() -> Made:
    data = bytearray(release(2).data)
    data[data.index(b"# Tiny")] ^= 1
    return Made(bytes(data))


OTHER_CHANNELS = (Channel("flow", "m³/h"), Channel("pressure", "bar"))
REFUSED = {
    "unsigned": (release(2, key=None), SignatureError, "is not signed"),
    "foreign": (release(2, key=FOREIGN), SignatureError, "by no trusted key"),
    "altered": (altered(), BundleError, "is damaged"),
    "truncated": (Made(release(2).data[:-30]), BundleError, "cut short"),
    "no bundle": (Made(b"hello"), BundleError, "is no bundle"),
    "wrong channels": (release(2, channels=OTHER_CHANNELS), BundleError, r"flow \[m³/h\]"),
    "another's": (
        release(2, name="mill"),
        BundleError,
        "is for 'mill', this gateway is for 'tiny'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_its_reason_and_nothing_changed(
    case: str, gateway: Device, root: Path
) -> None:
    made, kind, reason = REFUSED[case]
    with pytest.raises(kind, match=reason) as raised:
        bring(gateway, made)
    state, slot, problem = gateway.look()
    assert (state.phase, slot, problem) == ("committed", release(1).digest, "")
    assert last(gateway) == ("refused", str(raised.value))
    assert [file.stem for file in (root / "store").iterdir()] == [slot]
    assert not list((root / "incoming").iterdir())
    bring(gateway, release(2))
    assert tries(root) == release(2).digest, "and a good one is taken after it"


@settings(max_examples=40, deadline=None)
@given(
    place=st.integers(0, len(release(2).data) - 1),
    bit=st.integers(0, 7),
    cut=st.booleans(),
)
def test_any_changed_bit_or_missing_end_is_refused(place: int, bit: int, cut: bool) -> None:
    data = bytearray(release(2).data)
    data[place] ^= 1 << bit
    made = Made(bytes(data[:place]) if cut else bytes(data))
    with tempfile.TemporaryDirectory() as name:
        gateway = device(prepare(Path(name)))
        with pytest.raises(BundleError):
            bring(gateway, made)
        assert serves(Path(name)) == ""
        assert gateway.look()[0].floor == 0


def test_two_who_flash_at_once_do_not_mix(gateway: Device, root: Path) -> None:
    def flash(counter: int) -> str:
        try:
            bring(device(root), release(counter, padding=10_000))
        except EdgeTsadError as e:
            return str(e)
        return ""

    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(flash, (2, 3, 4, 5)))
    done = [counter for counter, problem in enumerate(said, 2) if not problem]
    state, slot, problem = gateway.look()
    assert len(done) <= 1, said
    if done:
        assert (state.phase, tries(root)) == ("trial", release(done[0], padding=10_000).digest)
    assert (slot, problem) == (serves(root), "")


def test_what_was_announced_is_what_must_arrive(gateway: Device) -> None:
    made = release(2)
    gateway.offset(made.transfer, len(made.data))
    gateway.receive(made.transfer, 0, made.data[:-1] + b"!")
    with pytest.raises(BundleError, match="altered on its way"):
        gateway.install(made.transfer)
    assert gateway.offset(made.transfer, len(made.data)) == 0, "it must be sent again"
    with pytest.raises(BundleError, match="has 0 bytes and not 5"):
        gateway.receive(made.transfer, 5, b"x")
    with pytest.raises(BundleError, match="altered on its way"):
        gateway.install(made.transfer)  # as if the first answer had been lost
    with pytest.raises(BundleError, match="has not arrived"):
        gateway.install(release(3).transfer)
    with pytest.raises(BundleError, match="no SHA-256"):
        gateway.offset("../../etc/passwd", 5)


def test_too_large_is_refused_before_a_byte_is_sent(root: Path) -> None:
    prepare(root, "max_mb = 0.001\nreserve_mb = 0\n")
    with pytest.raises(BundleError, match=r"too large: .* 1,000 are allowed"):
        bring(device(root), release(1))
    with pytest.raises(BundleError, match="larger than was announced"):
        device(root).receive(release(1).transfer, 0, release(1).data)


def test_the_owner_decides_name_channels_and_reserve(gateway: Device, root: Path) -> None:
    channels = 'channels = [{name = "flow", unit = "m³/h"}, {name = "pressure", unit = "bar"}]\n'
    prepare(root, f'name = "mill"\nreserve_mb = 0\n{channels}')
    bring(gateway, release(2, name="mill", channels=OTHER_CHANNELS))
    prepare(root, "reserve_mb = 1e9\n")
    with pytest.raises(BundleError, match="no space is left on the gateway"):
        gateway.offset(release(3).transfer, 1000)
    prepare(root, "trail_s = 5\n")
    with pytest.raises(EdgeTsadError, match="trail_s: is not a known key; did you mean 'trial_s'"):
        gateway.offset(release(3).transfer, 1000)


def test_one_update_at_a_time(gateway: Device) -> None:
    bring(gateway, release(2))
    with pytest.raises(BundleError, match=r"tiny-1\.2 is on trial; confirm it or roll it back"):
        bring(gateway, release(3))
    bring(gateway, release(2))
    assert gateway.look()[0].phase == "trial", "the same file again is no second update"


def test_check_says_what_install_would(gateway: Device, root: Path) -> None:
    before = (root / "state.json").read_bytes()
    good = release(2).bundle
    assert gateway.check(good.manifest_bytes, good.signature, 1000).version == "1.2"
    for case in ("unsigned", "foreign", "wrong channels", "another's"):
        made, kind, reason = REFUSED[case]
        with pytest.raises(kind, match=reason):
            gateway.check(made.bundle.manifest_bytes, made.bundle.signature, 1000)
    with pytest.raises(BundleError, match="too large"):
        gateway.check(good.manifest_bytes, good.signature, 10**9)
    assert (root / "state.json").read_bytes() == before


def test_a_gateway_without_keys_takes_nothing(tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match="trusts no keys yet"):
        bring(device(tmp_path / "bare"), release(1))
    assert serves(tmp_path / "bare") == ""


def test_a_rollback_asks_the_keys_of_today(gateway: Device, root: Path) -> None:
    bring(gateway, release(2))
    gateway.confirm()
    new = SigningKey.new()
    (root / "trusted.json").write_bytes(sign_keys(KeySet(2, (new.public("new"),)), new))
    with pytest.raises(SignatureError, match="by no trusted key"):
        gateway.rollback()
    assert serves(root) == release(2).digest


def test_a_failed_self_test_is_a_refusal(root: Path) -> None:
    gateway = device(root, tester=run_self_test)
    bring(gateway, release(1))
    found = [e.reason for e in gateway.look()[0].history if e.event == "self-tested"]
    assert "4 golden windows of model.onnx passed on onnxruntime" in found[0]
    with pytest.raises(
        BundleError, match=r"self-test failed: .*model.onnx on .*: a score is .* allowed"
    ):
        bring(gateway, release(2, golden_shift=1.0))
    assert serves(root) == release(1).digest
    # One window's peak is 0.15 off, of 0.2 that are allowed, but on the other side of the level.
    near = release(2, golden_shift=0.15, bounds=Bounds(0.2, 0.0, level=1.83))
    with pytest.raises(
        BundleError, match=r"within their bounds \(.*0\.75.*1 of 4 golden windows are decided"
    ):
        bring(gateway, near)
    assert serves(root) == release(1).digest
    bring(gateway, release(2, golden_shift=0.15, bounds=Bounds(0.2, 0.0, level=0.0)))
    assert tries(root), "as far off, and decided alike"


def test_a_runtime_that_crashes_takes_only_its_process_down(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nkill -SEGV $$\n")
    script.chmod(0o755)
    monkeypatch.setattr("edge_tsad.runtime.apart.sys.executable", str(script))
    with pytest.raises(BackendError, match=r"crashed in the self-test \(SIGSEGV\)"):
        bring(device(root, tester=run_self_test), release(1))


def test_a_damaged_active_bundle_is_replaced_by_one_committed_before(
    gateway: Device, root: Path
) -> None:
    bring(gateway, release(2))
    gateway.confirm()
    (root / "store" / f"{release(2).digest}.tsad").write_bytes(b"rotten")
    gateway.recover()
    assert serves(root) == release(1).digest
    assert last(gateway) == ("rolled back", "the file of the active bundle is damaged")
    (root / "store" / f"{release(1).digest}.tsad").unlink()
    _, slot, problem = gateway.look()
    assert slot == release(1).digest
    assert "no other can take its place" in problem


def test_a_lost_or_damaged_state_opens_no_door(gateway: Device, root: Path) -> None:
    (root / "state.json").write_bytes(b"{}\n{")
    with pytest.raises(BundleError, match=r"state.json: is no JSON"):
        bring(gateway, release(2))
    (root / "state.json").unlink()
    with pytest.raises(BundleError, match="is missing although a bundle is active"):
        bring(gateway, release(2))
    assert serves(root) == release(1).digest


def test_keys_under_which_nothing_could_serve_are_not_taken(gateway: Device, root: Path) -> None:
    new = SigningKey.new()
    old, next_one = KEY.public("release"), new.public("new")
    with pytest.raises(SignatureError, match=r"none of these keys signed tiny-1\.1, which serves"):
        gateway.trust(sign_keys(KeySet(2, (next_one,)), KEY, new))
    gateway.trust(sign_keys(KeySet(2, (old, next_one)), KEY, new))
    bring(gateway, release(2, key=new))
    gateway.confirm()
    gateway.trust(sign_keys(KeySet(3, (next_one,)), KEY, new))
    assert serves(root) == release(2, key=new).digest
