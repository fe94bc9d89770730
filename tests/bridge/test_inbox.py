"""Cards and sticks, written here and taken there."""

from __future__ import annotations

from pathlib import Path

import pytest
from bridge.releases import HandClock, Made, device, prepare, release, serves, tries

from edge_tsad.bundle import open_bundle
from edge_tsad.cli import flash
from edge_tsad.errors import BundleError, SignatureError, TransportError
from firmware_bridge.device import Device
from firmware_bridge.inbox import Inbox
from firmware_bridge.transports.directory import write_to_directory


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    folder = tmp_path / "stick"
    folder.mkdir()
    return folder


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def gateway(tmp_path: Path, stick: Path, clock: HandClock) -> Device:
    settings = f'reserve_mb = 0\ninbox = ["{stick}", "/nowhere/at/all"]\n'
    return device(prepare(tmp_path / "gateway", settings), clock)


def put(stick: Path, made: Made) -> None:
    list(write_to_directory(stick, made.bundle.manifest.filename, made.data))


def test_from_the_workstation_by_stick_to_a_committed_slot(
    gateway: Device, stick: Path, tmp_path: Path, clock: HandClock
) -> None:
    from click.testing import CliRunner

    made = release(1, padding=200_000)
    path = made.write(tmp_path / "any name.tsad")
    dry = CliRunner().invoke(flash.command, [str(path), "--directory", str(stick), "--dry-run"])
    assert "would be written" in dry.output
    assert not list(stick.iterdir())
    done = CliRunner().invoke(flash.command, [str(path), "--directory", str(stick)])
    assert f"{stick}: holds tiny-1.1" in done.output, done.output
    assert open_bundle(stick / "edge-tsad" / "tiny-1.1.tsad").digest == made.digest

    inbox, root = Inbox(gateway), gateway.folder.root
    inbox.scan()
    assert serves(root) == made.digest
    put(stick, release(3))
    put(stick, release(2))
    inbox.scan()
    assert tries(root) == release(3).digest, "the highest counter is taken first"
    inbox.scan()
    assert gateway.look()[0].phase == "trial"
    gateway.confirm()
    inbox.scan()
    assert serves(root) == release(3).digest, "an older one is never brought back by itself"


def test_a_stick_left_in_does_not_repeat_a_failure(
    gateway: Device, stick: Path, clock: HandClock
) -> None:
    root = gateway.folder.root
    put(stick, release(1))
    Inbox(gateway).scan()
    put(stick, release(2))
    Inbox(gateway).scan()
    clock.monotonic_s += 601
    gateway.recover()
    for _ in range(2):
        Inbox(gateway).scan()
    assert serves(root) == release(1).digest
    assert [e.event for e in gateway.look()[0].history].count("trial") == 1
    clock.reboot()
    Inbox(gateway).scan()
    assert serves(root) == release(1).digest


def test_one_cut_short_by_a_power_cut_is_tried_again(
    gateway: Device, stick: Path, clock: HandClock
) -> None:
    put(stick, release(1))

    def crash(path: Path) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Inbox(device(gateway.folder.root, clock, tester=crash)).scan()
    assert serves(gateway.folder.root) == ""
    gateway.recover()
    assert gateway.look()[0].history[-1].event == "interrupted"
    Inbox(gateway).scan()
    assert serves(gateway.folder.root) == release(1).digest


def test_a_bad_file_does_not_hide_a_good_one(gateway: Device, stick: Path) -> None:
    (stick / "a.tsad").write_bytes(release(5, key=None).data)
    (stick / "b.tsad").write_bytes(release(6).data[:3000])
    put(stick, release(1))
    with pytest.raises(BundleError, match=r"b\.tsad: is no bundle or is cut short"):
        Inbox(gateway).scan()
    assert serves(gateway.folder.root) == release(1).digest
    (stick / "b.tsad").unlink()
    with pytest.raises(SignatureError, match=r"a\.tsad: is not signed"):
        Inbox(gateway).scan()
    assert gateway.look()[2] == ""


def test_a_stick_pulled_half_way_holds_no_bundle_and_is_gone_on_with(stick: Path) -> None:
    made = release(1, padding=300_000)
    name = made.bundle.manifest.filename
    writing = write_to_directory(stick, name, made.data)
    assert [next(writing) for _ in range(3)] == [0, 65_536, 131_072]
    writing.close()
    assert not list(stick.glob("**/[!.]*.tsad"))
    again = list(write_to_directory(stick, name, made.data))
    assert again[0] == 131_072
    assert again[-1] == len(made.data)
    assert open_bundle(stick / "edge-tsad" / name).digest == made.digest
    assert not list(stick.glob("**/.*"))


def test_what_is_no_stick_is_said(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="is the card or stick mounted"):
        list(write_to_directory(tmp_path / "none", "a.tsad", b"x"))
    (tmp_path / "edge-tsad").write_text("a file")
    with pytest.raises(TransportError, match="could not be written to"):
        list(write_to_directory(tmp_path, "a.tsad", b"x"))
