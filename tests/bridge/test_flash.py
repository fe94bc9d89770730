"""As a user flashes: the command line, the system's ssh, a real sshd, the real agent behind it."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from bridge.conftest import CuttingProxy, Sshd
from bridge.releases import FOREIGN, KEY, device, prepare, release, serves, tries
from click.testing import CliRunner, Result
from oracles import tiny_bundle

from edge_tsad.cli import confirm, fetch, flash, history, rollback, status
from edge_tsad.errors import EdgeTsadError, TransportError
from edge_tsad.runtime.segments import read_recording
from edge_tsad.signing import KeySet, sign_keys
from firmware_bridge.flash import Connection, Payload, upload
from firmware_bridge.transports.ssh import SshTransport


@pytest.fixture(autouse=True)
def empty(sshd: Sshd) -> Iterator[None]:
    """Every test finds gateways on which nothing was flashed."""
    yield
    for root in sshd.roots.values():
        shutil.rmtree(root)
        prepare(root)


class User:
    """Calls commands with the test's ssh configuration."""

    def __init__(self, config: Path) -> None:
        self.config = config

    def run(self, command: click.Command, *arguments: object) -> Result:
        words = [str(argument) for argument in arguments]
        result = CliRunner().invoke(
            command, ["--ssh-config", str(self.config), *words], standalone_mode=False
        )
        if result.exception and not isinstance(result.exception, EdgeTsadError):
            raise result.exception
        return result

    def good(self, command: click.Command, *arguments: object) -> str:
        result = self.run(command, *arguments)
        assert result.exception is None, result.exception
        assert result.return_value == 0, result.output
        return result.output

    def bad(self, command: click.Command, *arguments: object) -> str:
        result = self.run(command, *arguments)
        if result.exception:
            return str(result.exception)
        assert result.return_value == 2, result.output
        return result.output


@pytest.fixture
def user(sshd: Sshd) -> User:
    return User(sshd.config)


@pytest.fixture
def bundles(tmp_path: Path) -> dict[int, Path]:
    return {n: release(n).write(tmp_path / f"tiny-1.{n}.tsad") for n in (1, 2, 3)}


def test_flash_status_confirm_rollback_history(
    user: User, sshd: Sshd, bundles: dict[int, Path]
) -> None:
    root = sshd.roots["gw-1"]
    assert "no bundle is active, empty" in user.good(status.command, "gw-1")
    first = user.good(flash.command, bundles[1], "gw-1")
    assert "gw-1: tiny-1.1 is active and committed" in first
    assert serves(root) == release(1).digest

    second = user.good(flash.command, bundles[2], "gw-1")
    assert "tiny-1.2 is on trial beside tiny-1.1 for 600 s; then it takes its place" in second
    assert (serves(root), tries(root)) == (release(1).digest, release(2).digest)
    looked = user.good(status.command, "gw-1")
    assert "tiny-1.1 (" in looked
    assert "on trial beside it: tiny-1.2, for" in looked
    assert "so far: no runtime has reported on it" in looked
    assert "tiny-1.2 is on trial; confirm it or roll it back" in user.bad(
        flash.command, bundles[3], "gw-1"
    )
    assert "is not on trial any more" in user.bad(confirm.command, "gw-1", "--bundle", bundles[3])
    committed = user.good(confirm.command, "gw-1", "--bundle", bundles[2])
    assert "is active, committed" in committed
    assert "may be rolled back to: tiny-1.1" in committed

    third = user.good(flash.command, bundles[3], "gw-1", "--confirm")
    assert "tiny-1.3 is active and committed" in third
    assert "tiny-1.2 (" in user.good(rollback.command, "gw-1")
    assert serves(root) == release(2).digest
    assert "tiny-1.1 (" in user.good(rollback.command, "gw-1", "--to", "1.1")
    told = json.loads(user.good(status.command, "gw-1", "--json"))
    assert told["active"]["digest"] == serves(root) == release(1).digest

    lines = user.good(history.command, "gw-1")
    assert "4 golden windows of model.onnx passed on onnxruntime" in lines
    entries = [json.loads(x) for x in user.good(history.command, "gw-1", "--json").splitlines()]
    assert [e["event"] for e in entries][-2:] == ["rolled back", "rolled back"]


def test_live_within_five_seconds_is_measured_not_hoped(
    user: User, sshd: Sshd, tmp_path: Path, record_property
) -> None:
    path = release(1, padding=200_000).write(tmp_path / "tiny.tsad")
    begun = time.monotonic()
    user.good(flash.command, path, "gw-1")
    record_property("flash_s", time.monotonic() - begun)
    assert serves(sshd.roots["gw-1"]) == release(1, padding=200_000).digest


def test_new_keys_come_with_the_bundle_that_needs_them(
    user: User, sshd: Sshd, tmp_path: Path
) -> None:
    keys = tmp_path / "trusted.json"
    keys.write_bytes(sign_keys(KeySet(2, (FOREIGN.public("next"),)), KEY, FOREIGN))
    path = release(1, key=FOREIGN).write(tmp_path / "tiny.tsad")
    assert "by no trusted key" in user.bad(flash.command, path, "gw-1")
    assert "active and committed" in user.good(flash.command, path, "gw-1", "--keys", keys)
    assert (sshd.roots["gw-1"] / "trusted.json").read_bytes() == keys.read_bytes()


def test_a_refusal_names_its_reason(user: User, sshd: Sshd, tmp_path: Path) -> None:
    foreign = release(1, key=FOREIGN).write(tmp_path / "foreign.tsad")
    assert "gw-1: the bundle: the signature of the manifest is by no trusted key" in user.bad(
        flash.command, foreign, "gw-1"
    )
    assert serves(sshd.roots["gw-1"]) == ""
    unsigned = release(1, key=None).write(tmp_path / "unsigned.tsad")
    assert "is not signed; sign it" in user.bad(flash.command, unsigned, "gw-1")


def test_where_to_must_be_clear(user: User, bundles: dict[int, Path], tmp_path: Path) -> None:
    either = "give either gateways"
    assert either in user.bad(flash.command, bundles[1])
    assert either in user.bad(flash.command, bundles[1], "gw-1", "--directory", tmp_path)
    assert "does not exist" in user.bad(flash.command, tmp_path / "none.tsad", "gw-1")


def test_a_dry_run_changes_nothing(user: User, sshd: Sshd, bundles: dict[int, Path]) -> None:
    root = sshd.roots["gw-1"]
    said = user.good(flash.command, bundles[1], "gw-1", "--dry-run")
    assert "tiny-1.1 would be accepted; nothing was sent" in said
    assert not (root / "state.json").exists()
    (root / "trusted.json").unlink()
    assert "trusts no keys yet" in user.bad(flash.command, bundles[1], "gw-1", "--dry-run")


def test_several_gateways_and_one_of_them_fails(
    user: User, sshd: Sshd, bundles: dict[int, Path]
) -> None:
    said = user.bad(flash.command, bundles[1], "gw-1", "gw-2", "gw-stranger")
    assert "gw-1: tiny-1.1 is active and committed" in said
    assert "gw-2: tiny-1.1 is active and committed" in said
    assert "gw-stranger:" in said
    assert "Permission denied" in said
    assert "2 of 3 gateways" in said
    assert {serves(root) for root in sshd.roots.values()} == {release(1).digest}


@pytest.mark.parametrize(
    ("gateway", "reason"),
    [
        ("gw-none", "has no agent of edge-tsad there"),
        ("gw-stranger", "Permission denied"),
        ("gw-changed", "Host key verification failed"),
        ("-oProxyCommand=touch /tmp/x", "is no gateway; give user@host"),
    ],
)
def test_a_gateway_that_cannot_be_used(user: User, gateway: str, reason: str) -> None:
    assert reason in user.bad(status.command, "--", gateway)


def test_an_upload_goes_on_where_the_line_was_cut(sshd: Sshd, cutting: CuttingProxy) -> None:
    made = release(1, padding=600_000)
    config = sshd.client_config("cut", cutting.port)
    connection = Connection(SshTransport("gw-1", config=config))
    payload = Payload(made.bundle, made.data, made.transfer)
    offsets = list(upload(connection, payload, pause_s=0.1))
    connection.close()
    assert offsets == sorted(offsets)
    assert offsets[-1] == len(made.data)
    repeated = sum(a == b for a, b in itertools.pairwise(offsets))
    assert repeated == 2, "two cuts, and after each it was asked how much is there"
    assert len(cutting.sent) == 3
    assert sum(cutting.sent) < 2 * len(made.data), "what was confirmed was not sent again"
    gateway = device(sshd.roots["gw-1"])
    gateway.install(made.transfer)
    assert serves(sshd.roots["gw-1"]) == made.digest


def test_a_line_that_stays_cut_is_said(sshd: Sshd) -> None:
    proxy = CuttingProxy(sshd.port, [10] * 100)
    config = sshd.client_config("dead", proxy.port)
    connection = Connection(SshTransport("gw-1", config=config))
    made = release(1)
    with pytest.raises(TransportError, match=r"gw-1: .*(closed|reset|Broken)"):
        list(upload(connection, Payload(made.bundle, made.data, made.transfer), pause_s=0))
    proxy.close()
    assert len(proxy.sent) == 5


def test_what_a_gateway_recorded_is_fetched_and_gone_on_with(
    user: User, sshd: Sshd, tmp_path: Path
) -> None:
    data, out = tmp_path / "data", tmp_path / "field"
    prepare(sshd.roots["gw-1"], f'data = "{data}"\n')
    assert "0 new bytes of history" in user.good(fetch.command, "gw-1", "--out", out)
    tiny_bundle.make(tmp_path / "tiny.tsad")
    values = [9.0 if 100 <= i < 105 else 0.5 for i in range(300)]
    lines = [f"{1_800_000_000 + i},{value},0" for i, value in enumerate(values)]
    (tmp_path / "x.csv").write_text("\n".join(["time,flow,pressure", *lines, ""]))
    (tmp_path / "gateway.toml").write_text(
        f'site = "plant"\ndevice = "gw"\ndata_dir = "{data}"\n[broker]\ndrain_s = 0.1\n'
        'url = "mqtt://127.0.0.1:1"\n[[streams]]\nname = "pump"\nbundle = "tiny.tsad"\n'
        'record = true\nsource = { type = "csv", path = "x.csv", speed = "max" }\n'
    )
    command = [sys.executable, "-m", "edge_tsad", "run", str(tmp_path / "gateway.toml")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    said = user.good(fetch.command, "gw-1", "--out", out, "--around", "10s")
    assert "2 new alert message(s), 1 window(s)" in said
    (window,) = (out / "gw-1" / "windows").iterdir()
    rows = window.read_text().splitlines()
    assert rows[0] == "time,flow,pressure"
    assert 20 < len(rows) < 40
    assert sum(",9.0," in row for row in rows) == 5
    recorded = read_recording(out / "gw-1" / "history" / "pump")
    assert len(recorded.index) == 300
    again = user.good(fetch.command, "gw-1", "--out", out)
    assert "0 new bytes of history in 1 file(s), 0 new alert message(s)" in again


@pytest.mark.parametrize("path", ["../outbox.db", "pump/../../x", "/etc/passwd", "pump", "a/b/c"])
def test_nothing_but_recorded_files_can_be_fetched(path: str, sshd: Sshd) -> None:
    connection = Connection(SshTransport("gw-1", config=sshd.config))
    with pytest.raises(EdgeTsadError, match="is no recorded file"):
        connection.request("read", path=path)
    connection.close()
