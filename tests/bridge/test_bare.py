"""A bare Debian without a network becomes a gateway: packages, users, owners, units, first bundle.

It is set up as a 32-bit one is, whose numpy must be Debian's.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bridge.bare import Bare, missing
from bridge.releases import TRUSTED, release
from click.testing import CliRunner, Result

from edge_tsad.cli import flash, provision, status
from firmware_bridge.provision import machines
from firmware_bridge.provision.machines import MACHINES

ROOT = "var/lib/edge-tsad-agent"


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bare]:
    if problem := missing():
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(f"A BARE DEBIAN IS NOT TRIED: {problem}")
    processor = MACHINES["bookworm", "amd64"].platforms
    as_32_bit = dataclasses.replace(MACHINES["bookworm", "armhf"], platforms=processor)
    monkeypatch.setitem(machines.MACHINES, ("bookworm", "amd64"), as_32_bit)
    made = Bare(tmp_path)
    yield made
    made.close()


def run(command: object, *arguments: object) -> Result:
    words = [str(a) for a in arguments]
    return CliRunner().invoke(command, words, standalone_mode=False)  # type: ignore[arg-type]


def owner(path: Path, users: dict[str, int], groups: dict[str, int]) -> str:
    """User, group and mode; ids are those of the gateway."""
    stat = path.stat()
    names = {number: name for name, number in users.items()}
    teams = {number: name for name, number in groups.items()}
    return f"{names[stat.st_uid]}:{teams[stat.st_gid]} {stat.st_mode & 0o7777:o}"


def ids(text: str) -> dict[str, int]:
    rows = (line.split(":") for line in text.splitlines())
    return {row[0]: int(row[2]) for row in rows}


@pytest.mark.environment
@pytest.mark.timeout(600)
def test_from_a_bare_debian_to_a_gateway_without_a_network(bare: Bare, tmp_path: Path) -> None:
    keys = tmp_path / "trusted.json"
    keys.write_bytes(TRUSTED)
    done = run(provision.command, "bare", "--ssh-config", bare.config, "--keys", keys)
    assert (done.exception, done.return_value) == (None, 0), done.output
    assert "with all that they need, from packages fetched here" in done.output
    assert "make the users edge-tsad (runtime) and edge-tsad-agent" in done.output
    assert "ready: edge-tsad, version" in done.output

    installed = ["dpkg-query", "-W", "-f", "${db:Status-Status}", "python3-numpy"]
    assert bare.run(*installed) == "installed"
    assert bare.run("dpkg", "--audit") == "", "no package is left half installed"
    python = "/opt/edge-tsad/venv/bin/python"
    assert "/usr/lib/python3" in bare.run(python, "-c", "import numpy; print(numpy.__file__)")
    assert "tflite-runtime" in bare.run("/opt/edge-tsad/venv/bin/edge-tsad", "doctor")

    passwd, group = bare.run("getent", "passwd"), bare.run("getent", "group")
    shells = [line for line in passwd.splitlines() if line.startswith("edge-tsad")]
    assert len(shells) == 2
    assert all(line.endswith("/usr/sbin/nologin") for line in shells)
    users, groups = ids(passwd), ids(group)
    agent = bare.root / ROOT
    assert owner(agent, users, groups) == "edge-tsad-agent:edge-tsad 2755"
    assert owner(agent / "inbox", users, groups) == "edge-tsad-agent:edge-tsad 2770"
    assert owner(agent / "trusted.json", users, groups) == "edge-tsad-agent:edge-tsad 644"
    assert owner(bare.root / "opt/edge-tsad/agent", users, groups) == "root:root 755"
    units = bare.root / "etc/systemd/system"
    assert "User=edge-tsad-agent" in (units / "edge-tsad-agent.service").read_text()

    # The log-in is root's, and yet all that the agent writes is its own user's.
    bundle = release(1).write(tmp_path / "tiny.tsad")
    flashed = run(flash.command, bundle, "bare", "--ssh-config", bare.config)
    assert "the self-test failed" in flashed.output, "this bundle has no file for its runtime"
    assert owner(agent / "state.json", users, groups).startswith("edge-tsad-agent:edge-tsad")
    looked = run(status.command, "bare", "--ssh-config", bare.config)
    assert "no bundle is active" in looked.output
    reader = ["setpriv", "--reuid=edge-tsad", "--regid=edge-tsad", "--clear-groups"]
    assert bare.run(*reader, "cat", f"/{ROOT}/trusted.json")
    with pytest.raises(subprocess.CalledProcessError):
        bare.run(*reader, "touch", f"/{ROOT}/x")

    again = run(provision.command, "bare", "--ssh-config", bare.config)
    assert again.return_value == 0, again.output
    assert "python3-numpy" not in again.output, "what is there is not fetched again"
    assert ids(bare.run("getent", "passwd")) == users


@pytest.mark.environment
@pytest.mark.timeout(600)
def test_a_set_of_packages_that_is_not_whole_changes_nothing(bare: Bare, tmp_path: Path) -> None:
    debs = tmp_path / "debs"
    debs.mkdir()
    options = ["bare", "--ssh-config", bare.config, "--debs", debs]
    before = bare.run("dpkg-query", "-W")

    def package(name: str, depends: str) -> None:
        made = tmp_path / name / "DEBIAN"
        made.mkdir(parents=True)
        (made / "control").write_text(
            f"Package: {name}\nVersion: 9\nArchitecture: all\nMaintainer: x <x@x>\n"
            f"Depends: {depends}\nDescription: none\n"
        )
        subprocess.run(["dpkg-deb", "-b", made.parent, debs], check=True, capture_output=True)

    package("python3-other", "python3")
    other = run(provision.command, *options)
    assert "python3-numpy is not among the packages that were carried along" in other.output
    package("python3-psutil", "python3")
    package("python3-numpy", "python3, a-library-that-is-not-there")
    half = run(provision.command, *options)
    assert half.return_value == 2
    assert "a-library-that-is-not-there" in half.output
    assert bare.run("dpkg-query", "-W") == before
    assert not (bare.root / "opt/edge-tsad").exists()
