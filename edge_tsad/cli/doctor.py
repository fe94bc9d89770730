"""``edge-tsad doctor``: what this machine can run, and why not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sqlite3
import sys
from pathlib import Path

import click

from edge_tsad import __version__
from edge_tsad.cli.tables import table
from edge_tsad.registry import BACKENDS
from edge_tsad.runtime.clock import kernel_is_synchronised

__all__ = ["command"]

EXTRAS = {
    "psutil": ("psutil", "system", "the source system"),
    "pyserial": ("serial", "serial", "the source serial"),
}
LITTLE_SPACE = 200e6
Line = tuple[str, str, str]


@click.command(
    name="doctor",
    help="""Say what this machine can run and why not.

The status is 1 if it cannot run any model.

\b
Example:
  edge-tsad doctor
""",
)
def command() -> int:
    """Print one line for each thing that a gateway needs."""
    runtimes = [runtime(name) for name in BACKENDS]
    lines = [machine(), *libraries(), *(line for line, _ in runtimes), *extras(), clock(), space()]
    click.echo("\n".join(table(["", "", ""], lines)).lstrip("\n"))
    if any(usable for _, usable in runtimes):
        return 0
    click.echo("edge-tsad: no inference runtime can be used here; see above", err=True)
    return 1


def machine() -> Line:
    """Processor, memory and system."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    words = f"{cores} core{'s' * (cores > 1)}, {memory / 1e9:.1f} GB, {platform.system()}"
    bits = "64" if sys.maxsize > 2**32 else "32"
    return ("machine", platform.machine(), f"{words} {platform.release()}, {bits}-bit programs")


def libraries() -> list[Line]:
    """What every gateway has."""
    found = [("edge-tsad", __version__, "ok"), ("python", platform.python_version(), "ok")]
    needed = ("numpy", "paho-mqtt", "cryptography")
    found += [(name, importlib.metadata.version(name), "ok") for name in needed]
    return [*found, ("sqlite", sqlite3.sqlite_version, "ok")]


def runtime(name: str) -> tuple[Line, bool]:
    """An inference runtime, and whether it can be used."""
    backend = BACKENDS[name]
    version = backend.version()
    if version is None:
        missing = f'not installed; pip install "edge-tsad[{backend.extra}]"'
        return (name, "-", missing), False
    unfit = backend.unfit()
    if unfit is not None:
        return (name, version, f"cannot be used: {unfit}"), False
    return (name, version, f"ok, runs {', '.join(backend.formats)}"), True


def extras() -> list[Line]:
    """Packages of single sources."""
    lines = []
    for name, (module, extra, purpose) in EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            lines.append((name, "-", f'{purpose} needs it; pip install "edge-tsad[{extra}]"'))
        else:
            lines.append((name, importlib.metadata.version(name), f"ok, for {purpose}"))
    return lines


def clock() -> Line:
    """Whether something keeps the wall clock right."""
    if kernel_is_synchronised():
        return ("clock", "synchronised", "ok")
    words = "alerts say so after ten minutes; is an NTP service running?"
    return ("clock", "not synchronised", words)


def space() -> Line:
    """Room where the outbox and the state are kept unless a configuration says otherwise."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    there = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(there).free
    verdict = "ok" if free > LITTLE_SPACE else "little; alerts and histories need room"
    return ("free space", f"{free / 1e9:.1f} GB", f"{verdict}, in {there}")
