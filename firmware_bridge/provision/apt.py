"""Debian packages of another machine, fetched with an apt state of its own.

Proxies and logins are those of this machine's apt settings. Nothing is installed and no file of
this machine changes.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_tsad.errors import ConfigError, TransportError
from firmware_bridge.provision.steps import run_step

__all__ = ["AptMissingError", "Archive", "PrivateApt", "own_archive", "require_apt"]

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
RELEASES = ("bookworm", "trixie", "stable", "oldstable", "bullseye", "forky", "testing", "sid")
TOOLS = ("apt-get", "apt-config", "dpkg")


class AptMissingError(ConfigError):
    """This machine cannot fetch Debian packages at all: a tool or an archive is missing."""


@dataclass(frozen=True, slots=True)
class Archive:
    """Where packages come from: lines of ``sources.list``, and the folder of keys that sign them.

    Without ``keys`` they are those that this machine trusts.
    """

    sources: tuple[str, ...]
    keys: Path | None = None


def require_apt() -> None:
    """Make sure that packages can be fetched here.

    Raises:
        AptMissingError: this machine has no apt.
    """
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise AptMissingError(
            f"Debian packages are fetched with apt, and {', '.join(missing)} is missing here; run "
            "this on Debian or a system made from it"
        )


def own_archive(suite: str, architecture: str) -> Archive:
    """The Debian archive in this machine's apt settings, for ``suite`` and ``architecture``.

    Raises:
        AptMissingError: this machine has no apt, or its settings name no Debian archive.
    """
    require_apt()
    signed = f" signed-by={KEYRING}" if KEYRING.exists() else ""
    return Archive((f"deb [arch={architecture}{signed}] {mirror()} {suite} main",))


class PrivateApt:
    """What can be had from an archive by a machine of some architecture.

    Args:
        folder: where lists and packages go; it may be removed afterwards.
        archive: where packages come from.
        architecture: Debian's name, such as ``arm64``.
        status: what is installed there, as in ``/var/lib/dpkg/status``; by default nothing.

    Raises:
        AptMissingError: this machine has no apt.
        TransportError: the lists could not be fetched or verified.
    """

    def __init__(
        self, folder: Path, archive: Archive, architecture: str, status: bytes = b""
    ) -> None:
        require_apt()
        self._folder = folder
        self._architecture = architecture
        for name in ("lists/partial", "archives/partial", "parts"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").write_bytes(status)
        (folder / "sources.list").write_text("\n".join([*archive.sources, ""]))
        self._configure(archive)
        self._update()

    def download(self, packages: Sequence[str]) -> list[Path]:
        """Fetch ``packages`` alone, without what they depend on.

        Raises:
            TransportError: one of them cannot be had.
        """
        target = self._folder / "alone"
        target.mkdir(exist_ok=True)
        self._apt(f"download {' '.join(packages)}", "download", *packages, cwd=target)
        return sorted(target.glob("*.deb"))

    def download_missing(self, packages: Sequence[str]) -> list[Path]:
        """Fetch ``packages`` and everything that is needed for them and not installed there.

        Raises:
            TransportError: they cannot be had, or cannot be installed beside what is there.
        """
        options = ["--download-only", "--no-install-recommends", "--no-remove", "--yes"]
        self._apt(f"download {' '.join(packages)}", "install", *options, *packages)
        return sorted((self._folder / "archives").glob("*.deb"))

    def _configure(self, archive: Archive) -> None:
        folder = self._folder
        # Of the machine's settings only how it reaches an archive is taken over, not its hooks.
        dump = run_step("read apt's settings", ["apt-config", "dump"], timeout_s=20)
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
        if archive.keys is not None:
            ours["Dir::Etc::trusted"] = "/dev/null"
            ours["Dir::Etc::trustedparts"] = str(archive.keys)
        settings += [f'{key} "{value}";' for key, value in ours.items()]
        config = folder / "apt.conf"
        config.touch(mode=0o600)  # a proxy's address may hold a password
        config.write_text("\n".join(settings) + "\n")

    def _update(self) -> None:
        """Read the lists; one archive of several may be out of reach, or in the midst of a change.

        What it would have held is missing then, and said to be when it is asked for.
        """
        failed, output = None, ""
        try:
            output = self._apt("read the package lists", "update")
        except TransportError as e:
            failed = e
        if not list((self._folder / "lists").glob("*_Packages*")):
            said = " | ".join(output.splitlines()[-3:])  # without any list apt warns and returns 0
            raise failed or TransportError(f"could not read the package lists: none came ({said})")

    def _apt(self, what: str, *arguments: str, cwd: Path | None = None) -> str:
        env = {"APT_CONFIG": str(self._folder / "apt.conf"), "LC_ALL": "C.UTF-8"}
        step = f"{what} for {self._architecture}"
        return run_step(step, ["apt-get", *arguments], env=env, cwd=cwd)


def mirror() -> str:
    """Address of the Debian archive in this machine's apt settings."""
    fields = ["$(REPO_URI)", "$(RELEASE)", "$(COMPONENT)", "$(ORIGIN)", "$(CREATED_BY)"]
    listed = run_step(
        "read apt's settings",
        ["apt-get", "indextargets", "--format", " ".join(fields)],
        timeout_s=60,
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
    raise AptMissingError(
        "this machine's apt settings name no Debian archive (suite bookworm or trixie, component"
        " main); add one to /etc/apt/sources.list.d, or run this on Debian"
    )
