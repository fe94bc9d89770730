"""Setting up gateways: the plan for each machine, and one set up for real below a folder."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from bridge.conftest import Sshd
from bridge.releases import TRUSTED, release
from click.testing import CliRunner, Result

from edge_tsad.cli import flash, provision, status
from edge_tsad.errors import ConfigError, EdgeTsadError, TransportError
from firmware_bridge.provision import carry
from firmware_bridge.provision.machines import MACHINES
from firmware_bridge.provision.plan import Plan, Probe, Wishes, make_plan

PROBE = {
    "edge_tsad_probe": "1", "codename": "bookworm", "architecture": "arm64", "machine": "aarch64",
    "python": "3.11", "venv": "yes", "seconds": "1800000000", "free_kb": "9000000",
    "memory_kb": "4000000", "systemd": "yes", "root": "sudo", "installed": "", "config": "",
    "keys": "", "end": "1",
}  # fmt: skip
NOW = 1_800_000_100


def probe(**changes: str) -> Probe:
    lines = [f"{key}={value}" for key, value in {**PROBE, **changes}.items()]
    return Probe.read("\n".join(["Welcome to gw!", *lines]), "gw")


def plan(wishes: Wishes | None = None, **changes: str) -> Plan:
    return make_plan(probe(**changes), wishes or Wishes("0.1.0+abc", True, True), NOW)


NUMPY = ("python3-numpy", "python3-cffi-backend", "python3-psutil")
FOUR = [
    ("bookworm", "arm64", "3.11", "ai-edge-litert", ()),
    ("trixie", "arm64", "3.13", "ai-edge-litert", ()),
    ("bookworm", "armhf", "3.11", "tflite-runtime", NUMPY),
    ("trixie", "armhf", "3.13", "onnxruntime (Debian's)", (*NUMPY, "python3-onnxruntime")),
]


@pytest.mark.parametrize(("codename", "architecture", "python", "runtime", "apt"), FOUR)
def test_each_machine_gets_the_runtime_that_it_can_have(
    codename: str, architecture: str, python: str, runtime: str, apt: tuple[str, ...]
) -> None:
    made = plan(codename=codename, architecture=architecture, python=python)
    text = "\n".join(made.steps)
    assert (made.machine.runtime, made.apt) == (runtime, apt)
    assert f"Python {python}" in text
    assert runtime in text
    assert ("with the system's packages" in text) == bool(apt)
    assert all(name in text for name in apt)
    assert made.steps[-1] == "start them"
    assert made.warnings == ()
    assert made.memory_max == "2000M"


def test_a_second_run_leaves_what_is_there() -> None:
    first = plan()
    again = plan(installed=first.mark, config="yes", keys="yes")
    assert (first.carry, again.carry) == (True, False)
    assert any("leave /opt/edge-tsad/venv as it is" in step for step in again.steps)
    assert any("the one that is there stays" in step for step in again.steps)
    assert plan(installed="0.0.9+old litert 3.11").carry, "another version is brought"


REFUSED = {
    "a Pi Zero": ({"architecture": "armel"}, "bookworm on armel; known are"),
    "another system": ({"codename": "noble", "architecture": "arm64"}, "noble on arm64"),
    "no Debian": ({"codename": "", "architecture": ""}, "an unknown system"),
    "a Pi Zero with Raspberry Pi OS": (
        {"architecture": "armhf", "machine": "armv6l"},
        "processor is armv6l; its runtimes need ARMv7",
    ),
    "another Python": ({"python": "3.9"}, "has Python 3.9 as python3; 64-bit bookworm comes with"),
    "no Python": ({"python": ""}, "has no Python as python3"),
    "no venv": ({"venv": ""}, "has no module venv"),
    "no rights": ({"root": "no"}, "may not use sudo without a password"),
    "a full card": ({"free_kb": "100000"}, "has 100 MB free; 400 MB are needed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_gateway_that_cannot_be_set_up_is_told_why(case: str) -> None:
    changes, reason = REFUSED[case]
    with pytest.raises(ConfigError, match=reason):
        plan(**changes)


def test_what_the_owner_should_know_is_said() -> None:
    made = plan(Wishes("1", False, False), seconds="0", systemd="")
    text = " ".join(made.warnings)
    assert "its clock is 20833 days off" in text
    assert "not run by systemd" in text
    assert "takes no bundle" in text
    assert made.steps[-1] == "start nothing"


@pytest.mark.parametrize("said", ["", "hello", "edge_tsad_probe=1\ncodename=bookworm\n"])
def test_an_answer_that_is_none_is_said(said: str) -> None:
    with pytest.raises(TransportError, match="gw: is no Debian that can be asked"):
        Probe.read(said, "gw")


@pytest.mark.parametrize("key", MACHINES)
def test_what_is_asked_of_pip_is_pinned_and_can_be_had(
    key: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(carry, "run_step", lambda what, command, cwd: asked.append(command))
    machine = MACHINES[key]
    carry.wheels(machine, tmp_path)
    words = [word for word in asked[0] if "==" in word]
    names = {word.partition("==")[0] for word in words}
    assert {"click", "cryptography", "paho-mqtt", "pip"} <= names
    assert ("numpy" in names) == (not machine.sees_system), "numpy has no wheel for 32 bits"
    assert machine.runtime.startswith("onnx") or machine.runtime in names


@pytest.mark.environment
@pytest.mark.parametrize("key", [key for key in MACHINES if key[1] == "armhf"])
def test_wheels_for_32_bits_can_really_be_had(key: tuple[str, str], tmp_path: Path) -> None:
    carry.wheels(MACHINES[key], tmp_path)
    found = {wheel.name.partition("-")[0] for wheel in tmp_path.glob("*.whl")}
    assert {"click", "cryptography", "paho_mqtt", "pip"} <= found
    assert ("tflite_runtime" in found) == (key[0] == "bookworm")
    assert not found & {"numpy", "cffi"}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine must be one of those that can be set up, with the right to."""
    release_file = Path("/etc/os-release")
    text = release_file.read_text() if release_file.exists() else ""
    if os.geteuid() or not any(f"VERSION_CODENAME={name}" in text for name in ("bookworm",)):
        pytest.skip("PROVISIONING IS NOT TRIED: it takes root on Debian bookworm")
    # The system's Python, as on a gateway, and not that of the tests.
    monkeypatch.setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")


def run(command: object, *arguments: object) -> Result:
    words = [str(a) for a in arguments]
    return CliRunner().invoke(command, words, standalone_mode=False)  # type: ignore[arg-type]


@pytest.mark.environment
@pytest.mark.usefixtures("here")
def test_from_nothing_to_a_gateway_that_takes_a_bundle(sshd: Sshd, tmp_path: Path) -> None:
    prefix = sshd.folder / "bare"
    shutil.rmtree(prefix, ignore_errors=True)
    prefix.mkdir()
    keys = tmp_path / "trusted.json"
    keys.write_bytes(TRUSTED)
    config = tmp_path / "gateway.toml"
    config.write_text(
        'site = "plant"\ndevice = "gw"\n[broker]\nurl = "mqtt://localhost"\n[[streams]]\n'
        f'name = "pump"\nbundle = "{prefix}/var/lib/edge-tsad-agent/active.tsad"\n'
        'source = { type = "stdin" }\n'
    )
    options = ["gw-bare", "--ssh-config", sshd.config, "--prefix", prefix]
    dry = run(provision.command, *options, "--dry-run")
    assert dry.exception is None, dry.exception
    assert "gw-bare: is a PC with bookworm" in dry.output
    assert "with ai-edge-litert from carried wheels" in dry.output
    assert not list(prefix.iterdir()), "a dry run changes nothing"

    done = run(provision.command, *options, "--keys", keys, "--config", config)
    assert done.exception is None, done.exception
    assert done.return_value == 0, done.output
    assert "ready: edge-tsad, version" in done.output
    command = prefix / "opt/edge-tsad/venv/bin/edge-tsad"
    said = subprocess.run([command, "doctor"], capture_output=True, text=True, check=True).stdout
    assert "litert" in said
    units = prefix / "etc/systemd/system"
    unit = (units / "edge-tsad-agent.service").read_text()
    assert f"{prefix}/opt/edge-tsad/venv/bin/python -m firmware_bridge.agent" in unit
    written = "".join(path.read_text() for path in units.rglob("*.*") if path.is_file())
    assert not re.search("@[A-Z_]+@|{[a-z_]+}", written)
    assert (prefix / "etc/edge-tsad/gateway.toml").read_bytes() == config.read_bytes()
    assert not list((prefix / "var/tmp").iterdir())

    before = (prefix / "opt/edge-tsad/venv").resolve()
    config.write_text("# changed by hand here, which must not overwrite what is there\n" +
                      config.read_text())  # fmt: skip
    again = run(provision.command, *options, "--keys", keys, "--config", config)
    assert again.return_value == 0, again.output
    assert "as it is: edge-tsad" in again.output
    assert (prefix / "opt/edge-tsad/venv").resolve() == before
    assert "# changed" not in (prefix / "etc/edge-tsad/gateway.toml").read_text()

    # And it is flashed as any other: a refusal by its own self-test shows that all of it runs.
    root = f"{prefix}/var/lib/edge-tsad-agent"
    way = ["gw-bare", "--ssh-config", sshd.config, "--agent", f"{prefix}/opt/edge-tsad/agent"]
    looked = run(status.command, *way, "--root", root)
    assert "no bundle is active, empty" in looked.output
    bundle = release(1).write(tmp_path / "tiny.tsad")
    flashed = run(flash.command, bundle, *way, "--root", root)
    assert "onnxruntime" in flashed.output, "this bundle is for ONNX Runtime, which it has not"


def test_a_runtime_that_cannot_run_changes_nothing(tmp_path: Path) -> None:
    """The script alone, with wheels that make no program."""
    folder, prefix = tmp_path / "carried", tmp_path / "prefix"
    (folder / "wheels").mkdir(parents=True)
    for name in ("pip-1-py3-none-any.whl",):
        with zipfile.ZipFile(folder / "wheels" / name, "w") as wheel:
            wheel.writestr("pip/__main__.py", "raise SystemExit('no such wheel')\n")
    with zipfile.ZipFile(folder / "wheels" / "edge_tsad-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("x", "")
    (folder / "units").mkdir()
    shutil.copy(Path(carry.__file__).with_name("install.sh"), folder)
    settings = {
        "PREFIX": str(prefix), "MARK": "1", "CARRY": "yes", "SEES_SYSTEM": "", "APT": "",
        "MEMORY_MAX": "1M", "START": "no",
    }  # fmt: skip
    text = "".join(f"{key}={shlex.quote(value)}\n" for key, value in settings.items())
    (folder / "settings.sh").write_text(text)
    done = subprocess.run(
        ["sh", str(folder / "install.sh")], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert not (prefix / "opt/edge-tsad/venv").exists()
    assert not (prefix / "opt/edge-tsad/installed").exists()


def test_mistakes_are_said_before_anybody_is_called(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("site = 1\n")
    for options, reason in (
        (["--config", bad], "site"),
        (["--keys", bad], "key set"),
        (["--debs", tmp_path], "no folder with Debian packages"),
        (["--prefix", "../x"], "no absolute path"),
    ):
        result = run(provision.command, "gw-nowhere", *options)
        assert isinstance(result.exception, EdgeTsadError)
        assert reason in str(result.exception)
