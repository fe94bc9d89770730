"""From a received file to a committed slot, and back to one that was committed before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bridge.releases import (
    HandClock,
    bring,
    device,
    last,
    release,
    serves,
    tries,
)

from edge_tsad.errors import BundleError, EdgeTsadError, SignatureError
from edge_tsad.keys import SigningKey
from edge_tsad.signing import KeySet, sign_keys
from firmware_bridge.device import Device


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


def test_one_update_at_a_time(gateway: Device) -> None:
    bring(gateway, release(2))
    with pytest.raises(BundleError, match=r"tiny-1\.2 is on trial; confirm it or roll it back"):
        bring(gateway, release(3))
    bring(gateway, release(2))
    assert gateway.look()[0].phase == "trial", "the same file again is no second update"


def test_a_rollback_asks_the_keys_of_today(gateway: Device, root: Path) -> None:
    bring(gateway, release(2))
    gateway.confirm()
    new = SigningKey.new()
    (root / "trusted.json").write_bytes(sign_keys(KeySet(2, (new.public("new"),)), new))
    with pytest.raises(SignatureError, match="by no trusted key"):
        gateway.rollback()
    assert serves(root) == release(2).digest


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
