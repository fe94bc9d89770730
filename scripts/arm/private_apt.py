"""Debian packages of another system, fetched with an apt state of its own.

The archive's address, proxies and logins are those of this machine's apt settings; signatures are
checked with this machine's Debian keyring. Nothing is installed and no file of the machine changes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

__all__ = ["EmulationError", "PrivateApt", "UnavailableError", "run_step", "unpack"]

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
RELEASES = ("bookworm", "trixie", "stable", "oldstable", "bullseye", "forky", "testing", "sid")
TOOLS = ("apt-get", "apt-config", "dpkg", "dpkg-deb", "gpgv")


class EmulationError(Exception):
    """An emulated system could not be built or run; the message is one sentence."""


class UnavailableError(EmulationError):
    """This machine cannot build emulated systems at all: it is no Debian, or a tool is missing."""


def run_step(
    what: str,
    command: Sequence[str | Path],
    *,
    timeout_s: float,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Standard output of ``command``.

    Raises:
        EmulationError: it failed or took longer than ``timeout_s``; names ``what`` and its reason.
    """
    try:
        done = subprocess.run(
            [str(part) for part in command],
            env={**os.environ, **(env or {})},
            cwd=cwd,
            text=True,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EmulationError(f"{what}: took more than {timeout_s:.0f} s; try again") from error
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise EmulationError(f"{what}: failed ({' | '.join(lines[-4:])})")
    return done.stdout


def unpack(packages: Sequence[Path], root: Path) -> None:
    """Extract the files of ``packages`` into ``root``; no maintainer script is run."""
    root.mkdir(parents=True, exist_ok=True)
    for package in packages:
        run_step(f"unpack {package.name}", ["dpkg-deb", "-x", package, root], timeout_s=120)


class PrivateApt:
    """The packages of one suite and architecture.

    Args:
        folder: where lists and packages go; it may be removed afterwards.
        suite: such as ``bookworm-backports``.
        architecture: Debian's name, such as ``arm64``; None is this machine's.

    Raises:
        UnavailableError: this machine has no apt or no Debian archive in its settings.
        EmulationError: the lists could not be fetched or verified.
    """

    def __init__(self, folder: Path, suite: str, architecture: str | None = None) -> None:
        missing = [tool for tool in TOOLS if shutil.which(tool) is None]
        if missing:
            raise UnavailableError(
                f"emulated systems are built from Debian packages and {', '.join(missing)} is"
                " missing; run this on Debian with: apt-get install apt dpkg gpgv"
            )
        self.suite = suite
        self._folder = folder
        self._architecture = (
            architecture or run_step("dpkg", ["dpkg", "--print-architecture"], timeout_s=20).strip()
        )
        self._mirror = _mirror()
        self._configure()
        self._apt("read the package lists", ["update"])

    def download(self, packages: Sequence[str]) -> list[Path]:
        """Fetch ``packages`` alone, without what they depend on."""
        target = self._folder / "alone"
        target.mkdir(exist_ok=True)
        self._apt(f"download {' '.join(packages)}", ["download", *packages], cwd=target)
        return sorted(target.glob("*.deb"))

    def download_closure(self, packages: Sequence[str]) -> list[Path]:
        """Fetch ``packages`` and everything that an empty system needs for them."""
        options = ["--download-only", "--no-install-recommends", "--yes"]
        self._apt(f"download {' '.join(packages)}", ["install", *options, *packages])
        return sorted((self._folder / "archives").glob("*.deb"))

    def _configure(self) -> None:
        folder = self._folder
        for name in ("lists/partial", "archives/partial", "parts"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        signed = f" signed-by={KEYRING}" if KEYRING.exists() else ""
        (folder / "sources.list").write_text(
            f"deb [arch={self._architecture}{signed}] {self._mirror} {self.suite} main\n"
        )
        # Of the machine's settings only how it reaches an archive is taken over, not its hooks.
        dump = run_step("apt-config", ["apt-config", "dump"], timeout_s=20)
        settings = [line for line in dump.splitlines() if line.startswith("Acquire::")]
        ours = {
            "Acquire::AllowInsecureRepositories": "false",
            "Acquire::AllowDowngradeToInsecureRepositories": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "APT::Architecture": self._architecture,
            "APT::Architectures": self._architecture,
            "APT::Get::AllowUnauthenticated": "false",
            "APT::Immediate-Configure": "false",
            "APT::Sandbox::User": "root",
            "Debug::NoLocking": "true",
            "Dir::Cache": str(folder),
            "Dir::Cache::archives": str(folder / "archives"),
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": str(folder / "parts"),
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": str(folder / "parts"),
            "Dir::Etc::sourcelist": str(folder / "sources.list"),
            "Dir::Etc::sourceparts": str(folder / "parts"),
            "Dir::State": str(folder),
            "Dir::State::lists": str(folder / "lists"),
            "Dir::State::status": str(folder / "status"),
        }
        settings += [f'{key} "{value}";' for key, value in ours.items()]
        config = folder / "apt.conf"
        config.touch(mode=0o600)  # a proxy's address may hold a password
        config.write_text("\n".join(settings) + "\n")

    def _apt(self, what: str, arguments: list[str], cwd: Path | None = None) -> None:
        env = {"APT_CONFIG": str(self._folder / "apt.conf"), "LC_ALL": "C.UTF-8"}
        step = f"{self.suite} {self._architecture}: {what}"
        output = run_step(step, ["apt-get", *arguments], timeout_s=600, env=env, cwd=cwd)
        # Without its lists, `update` warns and returns 0.
        lists = list((self._folder / "lists").glob("*_Packages*"))
        if arguments == ["update"] and not lists:
            raise EmulationError(f"{step}: no list came ({' | '.join(output.splitlines()[-3:])})")


def _mirror() -> str:
    """Address of the Debian archive in this machine's apt settings."""
    fields = ["$(REPO_URI)", "$(RELEASE)", "$(COMPONENT)", "$(ORIGIN)", "$(CREATED_BY)"]
    listed = run_step(
        "apt settings", ["apt-get", "indextargets", "--format", " ".join(fields)], timeout_s=60
    )
    # ORIGIN may hold blanks; where the lists were never fetched it is left as it was written.
    entries = [line.split(" ", 3) for line in listed.splitlines() if line.endswith(" Packages")]
    found = [
        (origin.removesuffix(" Packages"), uri)
        for uri, release, component, origin in entries
        if release in RELEASES and component == "main"
    ]
    for wanted in ("Debian", "$(ORIGIN)", ""):
        for origin, uri in found:
            if origin == wanted:
                return uri
    raise UnavailableError(
        "this machine's apt settings name no Debian archive (suite bookworm or trixie, component"
        " main); run this on Debian, or add one to /etc/apt/sources.list.d"
    )
