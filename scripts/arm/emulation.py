"""Emulated gateways: built once into a cache folder, then a Python to run things in.

``emulated(name)`` returns a system of `systems.SYSTEMS`. Its packages lie unpacked in a folder and
are run by QEMU's user emulation: no root, no chroot, no boot, no change to this machine. The cache
is ``build/arm`` or the folder that the environment variable ``EDGE_TSAD_CACHE`` names. A part of it
is built anew when its definition or pins change.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from systems import RUNTIMES, SYSTEMS, System

from edge_tsad.errors import EdgeTsadError
from firmware_bridge.provision.apt import PrivateApt, own_archive, require_apt
from firmware_bridge.provision.steps import run_step

__all__ = ["Emulated", "EmulationError", "cache_folder", "cached", "emulated"]

PROJECT = Path(__file__).resolve().parents[2]
CARRIED = ("edge_tsad", "firmware_bridge")
QEMU_LEAST = 10  # version 7 crashes in LiteRT and in ONNX Runtime
QEMU_SUITE = "bookworm-backports"
LAYOUT = "1"  # to be raised when what is built from the same inputs becomes another
KEPT_DAYS = 3
DAY_S = 86_400

Say = Callable[[str], None]


class EmulationError(EdgeTsadError):
    """An emulated system could not be run, or kept; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Emulated:
    """A Python of another processor with this project's gateway packages on its path.

    ``root`` holds the system's files, ``sites`` a folder of wheels for each inference runtime, as a
    gateway has only one of them; ``project`` is a copy of this project's packages.
    """

    name: str
    system: System
    emulator: Path
    root: Path
    sites: Mapping[str, Path]
    project: Path

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Backends that can be had here."""
        return tuple(self.sites)

    def run(
        self,
        arguments: Sequence[str | Path],
        *,
        runtime: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python arguments…`` with ``runtime`` (by default the first) installed.

        It cannot start further emulated programs; what :meth:`launcher` makes can start itself.

        Args:
            arguments: what follows ``python``; paths are this machine's.
            runtime: one of `runtimes`.
            env: variables beside the few that Python needs; nothing else is inherited.
            timeout_s: after that many seconds the process is ended.

        Raises:
            EmulationError: the time is over, or the system does not have ``runtime``.
        """
        command, variables = self._prepared(runtime)
        try:
            return subprocess.run(
                [*command, *map(str, arguments)],
                env={**variables, **(env or {})},
                text=True,
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise EmulationError(f"{self.name}: took more than {timeout_s:.0f} s") from error

    def launcher(self, path: Path, runtime: str | None = None) -> Path:
        """Make ``path`` a program that is this Python, with all packages that a gateway has.

        It is that program for itself too: it can start itself.

        Raises:
            EmulationError: the system does not have ``runtime``, or a download failed.
        """
        command, variables = self._prepared(runtime)
        variables["PYTHONPATH"] += os.pathsep + str(_packages(self))
        emulator, *rest = map(shlex.quote, command)
        exports = "".join(f"export {key}={shlex.quote(text)}\n" for key, text in variables.items())
        path.write_text(f'#!/bin/sh\n{exports}exec {emulator} -0 "$0" {" ".join(rest)} "$@"\n')
        path.chmod(0o755)
        return path

    def _prepared(self, runtime: str | None) -> tuple[list[str], dict[str, str]]:
        """The beginning of a command line, and its variables."""
        runtime = runtime or self.runtimes[0]
        if runtime not in self.sites:
            raise EmulationError(f"{self.name} has no {runtime}, only {', '.join(self.runtimes)}")
        path = [self.project, self.sites[runtime]]
        if self.system.debian:
            path.append(self.root / "usr" / "lib" / "python3" / "dist-packages")
        variables = {
            "HOME": "/nonexistent",
            "LANG": "C.UTF-8",
            # Idle threads of numpy's linear algebra spin, which is worst where it is emulated.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PATH": "/usr/bin:/bin",
            "PYTHONHOME": str(self.root / "usr"),
            "PYTHONPATH": os.pathsep.join(map(str, path)),
        }
        python = self.root / "usr" / "bin" / f"python{self.system.python}"
        # -S: this machine's own dist-packages would otherwise be found.
        command = [self.emulator, "-L", self.root, "-cpu", self.system.cpu, python, "-S"]
        return [str(part) for part in command], variables


def cache_folder() -> Path:
    """Where emulated systems are kept."""
    return Path(os.environ.get("EDGE_TSAD_CACHE") or PROJECT / "build" / "arm").absolute()


def emulated(
    name: str, runtimes: Sequence[str] | None = None, say: Say = lambda _: None
) -> Emulated:
    """The system ``name``, with what the cache does not hold built first.

    Args:
        name: a key of `systems.SYSTEMS`.
        runtimes: of those that the system can have; None takes all.
        say: is told what is being done while something is built.

    Raises:
        AptMissingError: this machine cannot build it at all.
        TransportError: a download or an unpacking failed.
        EmulationError: the name is unknown, or a first run failed.
    """
    if name not in SYSTEMS:
        raise EmulationError(f"there is no emulated system {name!r}, only {', '.join(SYSTEMS)}")
    system = SYSTEMS[name]
    chosen = system.runtimes if runtimes is None else tuple(runtimes)
    unknown = [runtime for runtime in chosen if runtime not in system.runtimes]
    if unknown:
        raise EmulationError(f"{name} cannot have {unknown[0]}, only {', '.join(system.runtimes)}")
    code = {
        str(path.relative_to(PROJECT)): path.read_text()
        for part in CARRIED
        for path in sorted((PROJECT / part).rglob("*.py"))
    }
    bare = Emulated(
        name,
        system,
        _installed_emulator(system.emulator) or _qemu(say) / system.emulator,
        cached(f"{name}-root", [system], lambda folder: _build_root(system, folder, say)),
        {},
        cached("project", [code], lambda folder: _copy(code, folder)),
    )
    sites = {runtime: _site(bare, runtime, say) for runtime in chosen}
    return dataclasses.replace(bare, sites=sites)


def _qemu(say: Say) -> Path:
    names = sorted({system.emulator for system in SYSTEMS.values()})
    return cached("qemu", [QEMU_SUITE, names], lambda folder: _fetch_qemu(names, folder, say))


def _site(bare: Emulated, runtime: str, say: Say) -> Path:
    pins = PROJECT / "constraints" / RUNTIMES[runtime].pins

    def make(folder: Path) -> None:
        _install(bare, runtime, pins, folder, say)

    inputs = [bare.system, RUNTIMES[runtime], pins.read_text()]
    return cached(f"{bare.name}-{runtime}", inputs, make)


def _packages(bare: Emulated) -> Path:
    """What every gateway carries beside its inference runtime."""
    pins = PROJECT / "constraints" / "ort.txt"

    def make(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        where = ["--target", str(folder), "--constraint", str(pins), *_wheels(bare.system)]
        command = [*pip, *where, "click", "cryptography", "paho-mqtt"]
        run_step(f"install what {bare.name} carries", command)

    return cached(f"{bare.name}-packages", [bare.system, pins.read_text()], make)


def _build_root(system: System, root: Path, say: Say) -> None:
    say(f"{system.suite}: fetching Python {system.python} for {system.machine}")
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".apt-") as scratch:
        archive = own_archive(system.suite, system.architecture)
        apt = PrivateApt(Path(scratch), archive, system.architecture)
        unpack(apt.download_missing(system.packages), root)
    for unused in ("doc", "man", "locale", "info"):
        shutil.rmtree(root / "usr" / "share" / unused, ignore_errors=True)
    if not (root / "lib").exists():  # trixie's packages count on this link
        (root / "lib").symlink_to("usr/lib")
    # What a system's maintainer scripts would link: numpy asks for both beside the other libraries.
    for library in root.glob("usr/lib/*/*/lib*.so.3"):
        if library.parent.name in ("blas", "lapack"):
            link = library.parents[1] / library.name
            link.symlink_to(library.relative_to(link.parent))


def _install(bare: Emulated, runtime: str, pins: Path, site: Path, say: Say) -> None:
    """Put the pinned wheels of ``runtime`` (and numpy) into ``site`` and import them once."""
    say(f"{bare.name}: installing {runtime}")
    system, wanted = bare.system, RUNTIMES[runtime]
    if f"python3-{wanted.distribution}" not in system.debian:
        what = ["numpy", wanted.distribution]
        if "python3-numpy" in system.debian:
            what = ["--no-deps", wanted.distribution]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        where = ["--target", str(site), "--constraint", str(pins)]
        command = [*pip, *where, *_wheels(system), *what]
        run_step(f"install {runtime} for {bare.name}", command)
    there = dataclasses.replace(bare, sites={runtime: site})
    done = there.run(["-c", f"import numpy, {wanted.module}"], runtime=runtime, timeout_s=180)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise EmulationError(f"{bare.name}: {runtime} cannot be loaded ({reason[0]})")


def _wheels(system: System) -> list[str]:
    """Options of pip that choose the wheels of ``system``."""
    options = ["--only-binary=:all:", "--no-compile", "--implementation=cp"]
    # cryptography has one wheel for all later versions of Python: abi3.
    abis = [f"cp{system.python.replace('.', '')}", "abi3", "none"]
    options += ["--python-version", system.python, *(w for a in abis for w in ("--abi", a))]
    for tag in (*(f"2_{minor}" for minor in range(system.glibc, 16, -1)), "2014"):
        prefix = "manylinux" if tag == "2014" else "manylinux_"
        options += ["--platform", f"{prefix}{tag}_{system.machine}"]
    return options


def _installed_emulator(name: str) -> Path | None:
    """This machine's own emulator, if it is new enough."""
    for candidate in (name, f"{name}-static"):
        path = shutil.which(candidate)
        if path is not None:
            version = run_step(f"ask {candidate}", [path, "--version"], timeout_s=20)
            major = re.search(r"version (\d+)\.", version)
            if major and int(major[1]) >= QEMU_LEAST:
                return Path(path)
    return None


def _fetch_qemu(names: Sequence[str], folder: Path, say: Say) -> None:
    say(f"fetching QEMU from {QEMU_SUITE} (63 MB)")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".apt-") as scratch:
        require_apt()
        here = run_step("ask dpkg", ["dpkg", "--print-architecture"], timeout_s=20).strip()
        apt = PrivateApt(Path(scratch), own_archive(QEMU_SUITE, here), here)
        root = Path(scratch) / "root"
        unpack(apt.download(["qemu-user"]), root)
        for name in names:
            shutil.move(root / "usr" / "bin" / name, folder / name)


def unpack(packages: Sequence[Path], root: Path) -> None:
    """Extract the files of ``packages`` into ``root``; no maintainer script is run."""
    root.mkdir(parents=True, exist_ok=True)
    for package in packages:
        run_step(f"unpack {package.name}", ["dpkg-deb", "-x", package, root], timeout_s=120)


def _copy(code: Mapping[str, str], folder: Path) -> None:
    for name, text in code.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def cached(name: str, inputs: Sequence[object], make: Callable[[Path], None]) -> Path:
    """The cache's folder for ``name`` and ``inputs``; ``make`` fills a new one.

    It appears under its name only when it is complete; what failed leaves nothing. One process at
    a time makes it. Others of that name go when they were not asked for in some days.

    Raises:
        EmulationError: the cache cannot be written, or ``make`` failed.
    """
    digest = hashlib.sha256(repr([LAYOUT, *inputs]).encode()).hexdigest()[:12]
    cache = cache_folder()
    folder = cache / f"{name}-{digest}"
    try:
        with _lock(cache, name):
            if not folder.exists():
                _make_whole(folder, make)
            os.utime(folder)
            for old in cache.glob(f"{name}-{'[0-9a-f]' * 12}"):
                if time.time() - old.stat().st_mtime > KEPT_DAYS * DAY_S:
                    shutil.rmtree(old)
    except OSError as error:
        raise EmulationError(
            f"{folder}: cannot be made ({error.strerror}); free some space (1 GB is enough for all)"
            " or set EDGE_TSAD_CACHE to another folder"
        ) from error
    return folder


def _make_whole(folder: Path, make: Callable[[Path], None]) -> None:
    building = folder.with_name(f".{folder.name}")
    shutil.rmtree(building, ignore_errors=True)  # left by a process that was killed
    building.mkdir()
    try:
        make(building)
        building.rename(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


@contextlib.contextmanager
def _lock(cache: Path, name: str) -> Iterator[None]:
    """One process at a time is inside; the lock falls with the process."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f".{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
