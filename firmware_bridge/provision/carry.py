"""What travels to a gateway and is gathered here: wheels for it, a pip, this program."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import shutil
import sys
import tarfile
from pathlib import Path

from edge_tsad.errors import ConfigError
from firmware_bridge.provision.machines import Machine
from firmware_bridge.provision.steps import run_step

__all__ = ["own_wheel", "pack", "wheels"]

HERE = Path(__file__).parent
TREE = HERE.parents[1]
PIP = "pip==25.3"


def own_wheel(given: Path | None, folder: Path) -> tuple[Path, str]:
    """This program as a wheel in ``folder``, and a name of its very content.

    Raises:
        ConfigError: none was given and this is no source tree to build one from.
        TransportError: it could not be built.
    """
    if given is None:
        if not (TREE / "pyproject.toml").exists():
            raise ConfigError("provision: give the wheel of this program by --wheel")
        command = pip("wheel", "--no-deps", "--no-build-isolation", TREE)
        run_step("build the wheel", command, cwd=folder)
    elif given.suffix != ".whl" or not given.is_file():
        raise ConfigError(f"{given}: is no wheel")
    else:
        shutil.copy(given, folder)
    (wheel,) = folder.glob("edge_tsad-*.whl")
    version = wheel.name.split("-")[1]
    return wheel, f"{version}+{hashlib.sha256(wheel.read_bytes()).hexdigest()[:12]}"


def wheels(machine: Machine, folder: Path) -> None:
    """Fetch the pinned wheels that ``machine`` needs, and a pip for it.

    Raises:
        TransportError: the index could not be asked, or has none for such a machine.
    """
    lines = pins(machine.pins).read_text().splitlines()
    wanted = [
        line.strip()
        for line in lines
        if line.strip() and not line.startswith("#") and line.split("==")[0] not in machine.left_out
    ]
    tags = [word for tag in machine.platforms for word in ("--platform", tag)]
    options = ["--no-deps", "--only-binary=:all:", "--python-version", machine.python, *tags]
    command = pip("download", *options, *wanted, PIP)
    run_step(f"fetch wheels for {machine.name}", command, cwd=folder)


def pins(name: str) -> Path:
    """The file of versions, in an installed program or in its source tree."""
    inside = HERE / "pins" / f"{name}.txt"
    return inside if inside.exists() else TREE / "constraints" / f"{name}.txt"


def pip(*words: object) -> list[str]:
    """A command line of pip.

    Raises:
        ConfigError: there is no pip here.
    """
    if importlib.util.find_spec("pip") is None:
        raise ConfigError("provision: needs pip here, to fetch wheels for the gateway")
    options = ["--disable-pip-version-check", "--quiet"]
    return [sys.executable, "-m", "pip", *options, *map(str, words)]


def pack(folder: Path) -> bytes:
    """Everything in ``folder`` as a tar file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(folder, arcname=".")
    return buffer.getvalue()
