"""Setting up one gateway: ask what it is, gather what it needs, send it, run the script there."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import edge_tsad
from edge_tsad.errors import ConfigError, TransportError
from firmware_bridge.protocol import printable
from firmware_bridge.provision import carry
from firmware_bridge.provision.debian import Installed, fetch_packages
from firmware_bridge.provision.plan import Plan, Probe, Wishes, make_plan
from firmware_bridge.transports.ssh import SshTransport

__all__ = ["Gift", "provision"]

HERE = Path(__file__).parent
SERVICE = Path(edge_tsad.__file__).parent / "service" / "edge-tsad.service"
LIMIT_S = 1800


@dataclass(frozen=True, slots=True)
class Gift:
    """What the owner gives along; ``debs`` is a folder of Debian packages for a 32-bit gateway."""

    config: Path | None = None
    keys: Path | None = None
    debs: Path | None = None
    wheel: Path | None = None
    prefix: str = ""


def provision(
    transport: SshTransport, gift: Gift, *, dry_run: bool, say: Callable[[str], None]
) -> None:
    """Set up the gateway behind ``transport``; with ``dry_run`` only say what would be done.

    Raises:
        EdgeTsadError: it cannot be reached or set up; nothing that runs there was changed.
    """
    probe = ask(transport, gift.prefix)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "wheels").mkdir()
        _, version = carry.own_wheel(gift.wheel, folder / "wheels")
        wishes = Wishes(version, bool(gift.config), bool(gift.keys), bool(gift.debs), gift.prefix)
        try:
            plan = make_plan(probe, wishes, int(time.time()))
        except ConfigError as e:
            raise ConfigError(f"{transport.name}: {e}") from e
        for text in (f"is a {plan.machine.name}", *plan.steps):
            say(f"{transport.name}: {text}")
        for text in plan.warnings:
            say(f"{transport.name}: WARNING: {text}")
        if dry_run:
            return
        if plan.apt and gift.debs is None:
            say(f"{transport.name}: fetching packages for it …")
            fetch_packages(plan.apt, ask_packages(transport), folder / "debs")
        if plan.carry:
            say(f"{transport.name}: fetching wheels for it …")
        gather(plan, gift, folder)
        say(f"{transport.name}: sending it {size_mb(folder):.0f} MB and installing …")
        say(f"{transport.name}: {last_line(send(transport, folder, probe, gift))}")


def size_mb(folder: Path) -> float:
    """What a folder holds, in megabytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def ask(transport: SshTransport, prefix: str) -> Probe:
    """What the gateway is."""
    script = (HERE / "probe.sh").read_bytes()
    said = shell(transport, f"sh -s {shlex.quote(prefix)}", script)
    return Probe.read(said, transport.name)


def ask_packages(transport: SshTransport) -> Installed:
    """What its apt works with."""
    script = (HERE / "packages.sh").read_bytes()
    return Installed.read(shell(transport, "sh -s", script), transport.name)


def gather(plan: Plan, gift: Gift, folder: Path) -> None:
    """Everything that travels."""
    if plan.carry:
        carry.wheels(plan.machine, folder / "wheels")
    shutil.copytree(HERE.parent / "units", folder / "units")
    shutil.copy(SERVICE, folder / "units")
    shutil.copy(HERE / "install.sh", folder)
    for given, name in ((gift.config, "gateway.toml"), (gift.keys, "trusted.json")):
        if given is not None:
            shutil.copy(given, folder / name)
    if gift.debs is not None:
        (folder / "debs").mkdir()
        for package in gift.debs.glob("*.deb"):
            shutil.copy(package, folder / "debs")
    settings = {
        "PREFIX": gift.prefix,
        "MARK": plan.mark,
        "CARRY": "yes" if plan.carry else "no",
        "SEES_SYSTEM": "--system-site-packages" if plan.machine.sees_system else "",
        "APT": " ".join(plan.apt),
        "MEMORY_MAX": plan.memory_max,
        "START": "yes" if plan.steps[-1] == "start them" else "no",
    }
    lines = (f"{key}={shlex.quote(value)}\n" for key, value in settings.items())
    (folder / "settings.sh").write_text("".join(lines))


def send(transport: SshTransport, folder: Path, probe: Probe, gift: Gift) -> str:
    """Unpack it there, run the script and clean up, all in one session; returns what it said."""
    become = "sudo -n " if probe.root == "sudo" else ""
    where = f"{gift.prefix}/var/tmp"  # noqa: S108 - mktemp makes a folder of its own in it
    steps = (
        f"umask 022; mkdir -p {shlex.quote(where)}; "
        f"d=$(mktemp -d {shlex.quote(where)}/edge-tsad.XXXXXX) || exit 1; "
        "trap 'rm -rf \"$d\"' EXIT; "
        f'tar -x -C "$d" && {become}sh "$d/install.sh"'
    )
    return shell(transport, f"sh -c {shlex.quote(steps)}", carry.pack(folder))


def shell(transport: SshTransport, command: str, data: bytes) -> str:
    """Run ``command`` on the gateway with ``data`` on its input; returns its output.

    Raises:
        TransportError: it could not be reached, or the command failed; its last words are given.
    """
    try:
        done = subprocess.run(
            transport.run(command), input=data, capture_output=True, timeout=LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise TransportError(f"{transport.name}: could not be reached: {e}") from e
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).decode("utf-8", "replace")
        raise TransportError(f"{transport.name}: {printable(last_line(said)) or 'it failed'}")
    return done.stdout.decode("utf-8", "replace")


def last_line(text: str) -> str:
    """The last line of an output."""
    return text.strip().rpartition("\n")[2]
