"""The Debian packages that a gateway lacks, resolved and fetched here as its own apt would do it.

The gateway says what is installed there, where its apt fetches from and which keys that apt trusts;
the rest needs no network there. What its own archives do not give (a card made without any, an
archive that cannot be reached from here) comes from this machine's Debian archive, if the gateway
is Debian too.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_tsad.errors import EdgeTsadError, TransportError
from firmware_bridge.provision.apt import (
    AptMissingError,
    Archive,
    PrivateApt,
    own_archive,
    require_apt,
)

__all__ = ["Installed", "Source", "fetch_packages"]

MOST_BYTES = 64 << 20
STATUS = "var/lib/dpkg/status"
TRUSTED = "etc/apt/trusted.gpg.d/"
OTHERWISE = "give the packages in a folder (--debs FOLDER), or install {} there by hand"
ADDRESS = re.compile(r"https?://[^\s\[\]]+")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]*")


@dataclass(frozen=True, slots=True)
class Source:
    """One component of an archive; ``key`` is the path of the key that signs it, or empty."""

    address: str
    release: str
    component: str
    key: str = ""

    @classmethod
    def read(cls, text: str, architecture: str) -> Source | None:
        """The source in a line of apt's; None where it is for others, or on a medium there."""
        words = text.split(" ")
        if len(words) < 5 or words[0] != "Packages" or words[1] != architecture:
            return None
        address, release, component = words[2:5]
        if not ADDRESS.fullmatch(address) or not all(map(NAME.fullmatch, (release, component))):
            return None
        return cls(address, release, component, " ".join(words[5:]).strip().removeprefix("/"))


@dataclass(frozen=True, slots=True)
class Installed:
    """What a gateway's apt works with; see ``packages.sh``.

    ``system`` is the name of the distribution, ``files`` are dpkg's status and the keys by their
    paths without the first stroke.
    """

    system: str
    release: str
    architecture: str
    sources: tuple[Source, ...]
    files: Mapping[str, bytes]

    @classmethod
    def read(cls, text: str, gateway: str) -> Installed:
        """What is said in the output of the script.

        Raises:
            TransportError: it is cut short, or holds no list of what is installed.
        """
        pairs = [line.partition("=")[::2] for line in text.splitlines()]
        found = dict(pairs)
        if found.get("edge_tsad_packages") != "1" or found.get("end") != "1":
            raise TransportError(f"{gateway}: does not say which packages it has")
        release, architecture = found.get("release", ""), found.get("architecture", "")
        sources = (Source.read(value, architecture) for key, value in pairs if key == "source")
        files = dict(unpack(found.get("files", ""), gateway))
        if STATUS not in files:
            raise TransportError(f"{gateway}: does not say which packages it has (/{STATUS})")
        known = tuple(dict.fromkeys(filter(None, sources)))
        return cls(found.get("system", ""), release, architecture, known, files)

    def apt(self, folder: Path, archive: Archive) -> PrivateApt:
        """An apt for this gateway; see :class:`PrivateApt`."""
        return PrivateApt(folder, archive, self.architecture, self.files[STATUS])

    def archive(self, folder: Path) -> Archive:
        """The gateway's own archives, with the keys that it trusts in ``folder``."""
        trusted = folder / "trusted"
        trusted.mkdir(parents=True)
        for path, data in self.files.items():
            # Names of the gateway become flat ones of this machine.
            target = trusted if path.startswith(TRUSTED) else folder
            (target / plain(path)).write_bytes(data)
        lines = []
        for source in self.sources:
            signed = ""
            if source.key in self.files and not source.key.startswith(TRUSTED):
                signed = f" signed-by={folder / plain(source.key)}"
            options = f"[arch={self.architecture}{signed}]"
            lines.append(f"deb {options} {source.address} {source.release} {source.component}")
        return Archive(tuple(lines), trusted)


def plain(path: str) -> str:
    """A path as the name of one file, of the letters that apt allows in the name of a key."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", path)


def unpack(text: str, gateway: str) -> Iterator[tuple[str, bytes]]:
    """The plain files of a packed tar file in base64.

    Raises:
        TransportError: it is none, or larger than such files are.
    """
    try:
        decoder = zlib.decompressobj(wbits=31)
        data = decoder.decompress(base64.b64decode(text, validate=True), MOST_BYTES)
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                opened = archive.extractfile(member) if member.isfile() else None
                if opened is not None:
                    yield member.name, opened.read()
    except (binascii.Error, ValueError, zlib.error, tarfile.TarError, EOFError) as e:
        raise TransportError(f"{gateway}: what it says of its packages cannot be read") from e


def fetch_packages(wanted: Sequence[str], installed: Installed, target: Path) -> list[Path]:
    """Fetch ``wanted`` and all that they need and that is not ``installed``, into ``target``.

    Raises:
        AptMissingError: this machine cannot fetch Debian packages.
        TransportError: they could not be fetched, or do not fit to what is installed.
    """
    otherwise = OTHERWISE.format(" ".join(wanted))
    try:
        require_apt()
    except AptMissingError as e:
        raise AptMissingError(f"{e}; or {otherwise}") from e
    problems = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, archive in enumerate(ways(installed, folder / "keys")):
            try:
                files = installed.apt(folder / str(number), archive()).download_missing(wanted)
            except EdgeTsadError as e:
                problems.append(str(e))
                continue
            target.mkdir(exist_ok=True)
            return [Path(shutil.move(file, target)) for file in files]
    reason = problems[0] if problems else "its apt names no archive that is reached over a network"
    raise TransportError(f"{reason}; {otherwise}")


def ways(installed: Installed, keys: Path) -> Iterator[Callable[[], Archive]]:
    """Where packages for a gateway may come from, the best first."""
    if installed.sources:
        yield lambda: installed.archive(keys)
    if installed.system == "debian":
        yield lambda: own_archive(installed.release, installed.architecture)
