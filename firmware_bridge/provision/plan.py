"""What a gateway is, and what has to be done to it: values only, no I/O."""

from __future__ import annotations

from dataclasses import dataclass

from edge_tsad.errors import ConfigError, TransportError
from firmware_bridge.provision.machines import Machine, machine_of

__all__ = ["Plan", "Probe", "Wishes", "make_plan"]

NEEDED_KB = 400_000
"""The environment with its wheels, twice while it is replaced."""
FAR_OFF_S = 86_400
TOO_OLD = ("armv6l", "armv5tejl", "armv5tel")
"""Raspberry Pi OS calls these armhf too: the first Pi and the Zero."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a gateway says of itself; see ``probe.sh``."""

    codename: str
    architecture: str
    machine: str
    python: str
    venv: bool
    seconds: int
    free_kb: int
    memory_kb: int
    systemd: bool
    root: str
    installed: str
    packages: frozenset[str]
    config: bool
    keys: bool

    @classmethod
    def read(cls, text: str, gateway: str) -> Probe:
        """The probe in the output of the script; what a log-in shell says around it is left out.

        Raises:
            TransportError: it is cut short or no such output.
        """
        lines = text.splitlines()
        pairs = [line.partition("=")[::2] for line in lines if "=" in line]
        found = dict(pairs)
        if found.get("edge_tsad_probe") != "1" or found.get("end") != "1":
            raise TransportError(f"{gateway}: is no Debian that can be asked what it is")

        def number(key: str) -> int:
            value = found.get(key, "")
            return int(value) if value.isdigit() else 0

        return cls(
            codename=found.get("codename", ""),
            architecture=found.get("architecture", ""),
            machine=found.get("machine", ""),
            python=found.get("python", ""),
            venv=found.get("venv") == "yes",
            seconds=number("seconds"),
            free_kb=number("free_kb"),
            memory_kb=number("memory_kb"),
            systemd=found.get("systemd") == "yes",
            root=found.get("root", "no"),
            installed=found.get("installed", ""),
            packages=frozenset(value for key, value in pairs if key == "package"),
            config=found.get("config") == "yes",
            keys=found.get("keys") == "yes",
        )


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the owner gives along: whether there are a configuration and keys, and a prefix.

    ``version`` names what is to be installed: program, runtime and pins.
    """

    version: str
    config: bool
    keys: bool
    debs: bool = False
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """``steps`` in words and in their order, ``warnings``, and what the installation is told."""

    machine: Machine
    mark: str
    carry: bool
    apt: tuple[str, ...]
    memory_max: str
    steps: tuple[str, ...]
    warnings: tuple[str, ...]


def make_plan(probe: Probe, wishes: Wishes, now_s: int) -> Plan:
    """The plan for a gateway.

    Raises:
        ConfigError: it cannot be set up; the sentence says what is in the way.
    """
    machine = machine_of(probe.codename, probe.architecture)
    require(probe, machine)
    mark = f"{wishes.version} {machine.pins} {machine.python}"
    carry = probe.installed != mark
    apt = tuple(p for p in machine.debian if p not in probe.packages)
    target = f"{wishes.prefix}/opt/edge-tsad/venv"
    steps = []
    if apt:
        how = "given" if wishes.debs else "fetched here"
        steps.append(f"install {', '.join(apt)} with all that they need, from packages {how}")
    if carry:
        sees = ", with the system's packages" if machine.sees_system else ""
        steps += [
            f"make {target} (Python {machine.python}{sees}) with a pip that is carried along",
            f"install edge-tsad {wishes.version} with {machine.runtime} from carried wheels",
        ]
    else:
        steps.append(f"leave {target} as it is: edge-tsad {wishes.version} is there")
    if not wishes.prefix:
        steps.append("make the users edge-tsad (runtime) and edge-tsad-agent (owns the bundles)")
    steps.append(f"make {wishes.prefix}/var/lib/edge-tsad-agent and its inbox")
    steps.append(given("trusted.json", wishes.keys, probe.keys))
    steps.append(given("gateway.toml", wishes.config, probe.config))
    steps.append("install the units edge-tsad.service, edge-tsad.path and edge-tsad-agent.service")
    steps.append("start them" if probe.systemd and not wishes.prefix else "start nothing")
    return Plan(
        machine, mark, carry, apt, memory_max(probe), tuple(steps), warnings(probe, wishes, now_s)
    )


def require(probe: Probe, machine: Machine) -> None:
    """Refuse a gateway on which the plan would fail."""
    if probe.python != machine.python:
        there = f"Python {probe.python}" if probe.python else "no Python"
        raise ConfigError(
            f"the gateway has {there} as python3; {machine.name} comes with {machine.python}"
            " (apt install python3)"
        )
    if probe.machine in TOO_OLD:
        raise ConfigError(
            f"the gateway's processor is {probe.machine}; its runtimes need ARMv7 or later"
        )
    if not probe.venv:
        raise ConfigError("the gateway's Python has no module venv (apt install python3)")
    if probe.root == "no":
        raise ConfigError(
            "the user is not root there and may not use sudo without a password; log in as one who"
            " may"
        )
    if probe.free_kb < NEEDED_KB:
        raise ConfigError(
            f"the gateway has {probe.free_kb // 1000} MB free; {NEEDED_KB // 1000} MB are needed"
        )


def given(name: str, now: bool, before: bool) -> str:
    """What happens to a file of the owner."""
    if now:
        return f"write {name}" + (" if there is none: the one that is there stays" * before)
    return f"leave {name} as it is" if before else f"{name} is missing: put it there later"


def memory_max(probe: Probe) -> str:
    """Half of the machine's memory, for the runtime's unit."""
    return f"{max(probe.memory_kb // 2000, 128)}M"


def warnings(probe: Probe, wishes: Wishes, now_s: int) -> tuple[str, ...]:
    """What the owner should know."""
    found = []
    if abs(probe.seconds - now_s) > FAR_OFF_S:
        days = abs(probe.seconds - now_s) // FAR_OFF_S
        found.append(
            f"its clock is {days} days off: samples will be stamped wrong until something sets it "
            "(systemd-timesyncd, or a clock module)"
        )
    if not probe.systemd:
        found.append("it is not run by systemd: nothing will start the services")
    if not (wishes.keys or probe.keys):
        found.append("without trusted keys it takes no bundle (--keys trusted.json)")
    return tuple(found)
