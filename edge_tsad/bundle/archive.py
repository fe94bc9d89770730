"""Writing and opening bundles: the only way from a file on disk to bytes that may be believed.

Order of opening: size, zip directory and names (:mod:`container`), signature where keys are given,
manifest, then size and hash of every member against the manifest. Model files, golden windows and
card are never looked into here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edge_tsad.bundle.container import DEFAULT_LIMITS, Limits, pack, unpack
from edge_tsad.bundle.manifest import MANIFEST, SIGNATURE, Listed, Manifest, ModelFile
from edge_tsad.decode import shorten
from edge_tsad.errors import BundleError, SignatureError
from edge_tsad.files import read_limited, write_atomically

__all__ = ["Bundle", "Verifier", "open_bundle", "parse_bundle", "write_bundle", "write_signature"]


class Verifier(Protocol):
    """Who says whether to believe a manifest; :class:`edge_tsad.signing.TrustedKeys` is one."""

    def verify(self, manifest: bytes, signature: bytes | None) -> object:
        """Raise SignatureError unless ``signature`` (None: none there) is good for ``manifest``."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle whose members all fit its manifest.

    ``where`` is what it is called in messages; ``signature`` are the bytes of ``manifest.sig``;
    ``verified`` is whether a :class:`Verifier` accepted them when the bundle was opened.
    """

    where: str
    manifest: Manifest
    manifest_bytes: bytes
    signature: bytes | None
    verified: bool
    members: Mapping[str, memoryview] = field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the exact bytes of the manifest, in hexadecimal: the bundle's identity."""
        return hashlib.sha256(self.manifest_bytes).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all members together."""
        return sum(len(content) for content in self.members.values())

    def read(self, path: str) -> bytes:
        """The bytes of a member.

        Raises:
            BundleError: there is no such member.
        """
        if path not in self.members:
            raise BundleError(f"{self.where}: has no member {shorten(path)}")
        return bytes(self.members[path])

    def model(self, format: str, scheme: str | None = None) -> ModelFile:  # noqa: A002
        """The model file of a format (and scheme; else the first listed).

        Raises:
            BundleError: there is none.
        """
        for file in self.manifest.files:
            if file.format == format and scheme in (None, file.scheme):
                return file
        there = ", ".join(f"{file.format} {file.scheme}" for file in self.manifest.files)
        wanted = format if scheme is None else f"{format} {scheme}"
        raise BundleError(f"{self.where}: has no {wanted} file; it has {there}")

    def require_counter(self, floor: int) -> None:
        """Refuse a bundle older than a gateway's floor.

        Raises:
            SignatureError: the bundle's counter is below ``floor``.
        """
        if self.manifest.counter < floor:
            raise SignatureError(
                f"{self.where}: is older than allowed: its counter is {self.manifest.counter}, "
                f"the least accepted here is {floor}"
            )


def write_bundle(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Path:
    """Write a bundle whole or not at all; equal input gives equal bytes.

    Args:
        path: the file, or a folder in which it is called ``manifest.filename``.
        manifest: lists every one of ``files`` with its size and hash.
        files: content by member path.

    Returns:
        The file written.

    Raises:
        BundleError: ``files`` and ``manifest`` do not agree, a limit is exceeded, or the file
            cannot be written.
    """
    target = path / manifest.filename if path.is_dir() else path
    data = pack({MANIFEST: manifest.to_json(), **files})
    parse_bundle(data, str(target))  # what could not be opened is not written
    write_atomically(target, data, BundleError)
    return target


def write_signature(path: Path, bundle: Bundle, signature: bytes) -> None:
    """Write ``bundle`` with ``signature`` as its ``manifest.sig``; all else stays as it is.

    Raises:
        BundleError: the signature is too long or the file cannot be written.
    """
    members = {name: bytes(content) for name, content in bundle.members.items()}
    data = pack({**members, SIGNATURE: signature})
    parse_bundle(data, str(path))
    write_atomically(path, data, BundleError)


def open_bundle(
    path: Path, limits: Limits = DEFAULT_LIMITS, *, trusted: Verifier | None = None
) -> Bundle:
    """Read and check a bundle; see :func:`parse_bundle`.

    Raises:
        BundleError: it cannot be read, is no bundle, is damaged or exceeds ``limits``.
        SignatureError: ``trusted`` is given and does not accept its signature.
    """
    data = read_limited(path, limits.total_bytes, BundleError)
    return parse_bundle(data, str(path), limits, trusted=trusted)


def parse_bundle(
    data: bytes, where: str, limits: Limits = DEFAULT_LIMITS, *, trusted: Verifier | None = None
) -> Bundle:
    """The bundle in ``data``, with every member checked against the manifest.

    Args:
        data: the whole file.
        where: what it is called in messages.
        limits: bounds on sizes and counts.
        trusted: keys that must have signed it; None accepts unsigned and unknown bundles.

    Raises:
        BundleError: it is no bundle, is damaged or exceeds ``limits``.
        SignatureError: ``trusted`` is given and does not accept its signature.
    """
    members = unpack(data, where, limits)
    manifest_bytes = bounded(members, MANIFEST, limits.manifest_bytes, where)
    if manifest_bytes is None:
        raise BundleError(f"{where}: has no {MANIFEST}; it is no bundle")
    signature = bounded(members, SIGNATURE, limits.signature_bytes, where)
    try:
        if trusted is not None:
            trusted.verify(manifest_bytes, signature)
        manifest = Manifest.from_json(manifest_bytes)
    except BundleError as e:
        raise type(e)(f"{where}: {e}") from e
    check_members(members, manifest.listed(), where)
    return Bundle(where, manifest, manifest_bytes, signature, trusted is not None, members)


def bounded(members: Mapping[str, memoryview], name: str, limit: int, where: str) -> bytes | None:
    """The bytes of a member that is parsed before it is verified; None where it is missing."""
    content = members.get(name)
    if content is None:
        return None
    if len(content) > limit:
        raise BundleError(f"{where}: {name} is larger than the {limit:,} bytes allowed for it")
    return bytes(content)


def check_members(
    members: Mapping[str, memoryview], listed: tuple[Listed, ...], where: str
) -> None:
    """Refuse members that are missing, unlisted, or of another size or hash than listed."""
    unlisted = set(members) - {entry.path for entry in listed} - {MANIFEST, SIGNATURE}
    if unlisted:
        raise BundleError(f"{where}: {min(unlisted)!r} is not listed in {MANIFEST}")
    for entry in listed:
        content = members.get(entry.path)
        if content is None:
            raise BundleError(f"{where}: {shorten(entry.path)} is listed in {MANIFEST} but missing")
        if len(content) != entry.size:
            raise BundleError(
                f"{where}: {entry.path!r} has {len(content):,} bytes; {entry.size:,} are listed"
            )
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise BundleError(
                f"{where}: {entry.path!r} is altered; its SHA-256 is not the listed one"
            )
