"""The zip file of a bundle: one spelling for one content.

A container is the subset of zip that :func:`pack` writes: members stored as they are (without
compression there are no bombs and no dependence on a version of zlib), sorted by name, with fixed
time stamps and attributes, without gaps, comments, extra fields, zip64 or encryption.
:func:`unpack` accepts nothing else, so any changed, added or missing byte is an error, whatever zip
would tolerate. Any unzip program reads it.

Source: APPNOTE.TXT 6.3.10 (PKWARE), sections 4.3.7, 4.3.12 and 4.3.16.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from edge_tsad.decode import shorten
from edge_tsad.errors import BundleError

__all__ = ["DEFAULT_LIMITS", "Limits", "check_name", "pack", "unpack"]

LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")

NEEDED = 10  # version 1.0: stored members only
MADE_BY = 3 << 8 | NEEDED  # Unix, so that the attributes below mean something
DATE = 1 << 5 | 1  # 1980-01-01, the first day that zip knows
ATTRIBUTES = 0o100644 << 16  # a regular file, rw-r--r--
FILE_TYPE, SYMLINK = 0o170000, 0o120000

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*(/[A-Za-z0-9][A-Za-z0-9._+-]*)*")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader accepts at most; the compression ratio is 1 by construction."""

    total_bytes: int = 64 << 20
    member_bytes: int = 32 << 20
    members: int = 64
    name_bytes: int = 100
    manifest_bytes: int = 2 << 20
    signature_bytes: int = 8 << 10


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the zip directory."""

    name: str
    crc: int
    size: int
    offset: int

    def local(self) -> bytes:
        """The header in front of the member's bytes."""
        name = self.name.encode("ascii")
        fields = (NEEDED, 0, 0, 0, DATE, self.crc, self.size, self.size, len(name), 0)
        return LOCAL.pack(b"PK\3\4", *fields) + name

    def central(self) -> bytes:
        """The line in the directory."""
        name = self.name.encode("ascii")
        fields = (MADE_BY, NEEDED, 0, 0, 0, DATE, self.crc, self.size, self.size, len(name))
        return CENTRAL.pack(b"PK\1\2", *fields, 0, 0, 0, 0, ATTRIBUTES, self.offset) + name


def pack(members: Mapping[str, bytes]) -> bytes:
    """A container with ``members``; equal members give equal bytes.

    Raises:
        BundleError: a name is unsafe.
    """
    body, directory = bytearray(), bytearray()
    for name in sorted(members):
        check_name(name, DEFAULT_LIMITS, "the bundle")
        data = members[name]
        entry = Entry(name, zlib.crc32(data), len(data), len(body))
        body += entry.local() + data
        directory += entry.central()
    count, start = len(members), len(body)
    end = END.pack(b"PK\5\6", 0, 0, count, count, len(directory), start, 0)
    return bytes(body + directory + end)


def unpack(data: bytes, where: str, limits: Limits = DEFAULT_LIMITS) -> dict[str, memoryview]:
    """The members of a container, as views into ``data``.

    Args:
        data: the whole file.
        where: what it is called in messages.
        limits: bounds on sizes and counts.

    Raises:
        BundleError: it is not exactly what :func:`pack` writes, or exceeds ``limits``.
    """
    if len(data) > limits.total_bytes:
        raise BundleError(f"{where}: is larger than the {limits.total_bytes:,} bytes allowed")
    members, position, view = dict[str, memoryview](), 0, memoryview(data)
    entries, start = read_directory(data, where, limits)
    for entry in entries:
        label = f"{where}: member {entry.name!r}"
        if entry.offset != position:
            raise BundleError(f"{label} does not follow the one before it; bytes were put between")
        header = entry.local()
        position += len(header) + entry.size
        if position > start:
            raise BundleError(f"{label} is cut short: it claims {entry.size:,} bytes")
        if data[entry.offset : entry.offset + len(header)] != header:
            raise BundleError(f"{label} contradicts its entry in the zip directory")
        content = view[position - entry.size : position]
        if zlib.crc32(content) != entry.crc:
            raise BundleError(f"{label} is damaged: its checksum does not fit")
        members[entry.name] = content
    if position != start:
        raise BundleError(f"{where}: holds bytes that belong to no member")
    if list(members) != sorted(members):
        raise BundleError(f"{where}: its members are not in the order of their names")
    return members


def read_directory(data: bytes, where: str, limits: Limits) -> tuple[list[Entry], int]:
    """The entries of the zip directory and where it starts."""
    if len(data) < END.size or data[-END.size : -END.size + 4] != b"PK\5\6":
        raise BundleError(
            f"{where}: is no bundle or is cut short: its last bytes are not the end of a zip file"
        )
    _, disk, first, here, count, size, start, comment = END.unpack_from(data, len(data) - END.size)
    if count > limits.members:
        raise BundleError(f"{where}: has {count} members; at most {limits.members} are allowed")
    if (disk, first, comment) != (0, 0, 0) or here != count:
        raise BundleError(f"{where}: its zip directory has parts that a bundle does not have")
    if start + size + END.size != len(data):
        raise BundleError(f"{where}: its zip directory is not where it should be; bytes were added")
    entries, seen, position = list[Entry](), set[str](), start
    for number in range(count):
        entry, position = read_entry(data, position, f"{where}: zip entry {number + 1}", limits)
        if entry.name.casefold() in seen:
            raise BundleError(
                f"{where}: the name {entry.name!r} occurs twice, perhaps in other case"
            )
        seen.add(entry.name.casefold())
        entries.append(entry)
    if position != start + size:
        raise BundleError(f"{where}: its zip directory holds more than its {count} entries")
    return entries, start


def read_entry(data: bytes, position: int, where: str, limits: Limits) -> tuple[Entry, int]:
    """One line of the directory and where the next begins."""
    fixed = position + CENTRAL.size
    if fixed > len(data) or data[position : position + 4] != b"PK\1\2":
        raise BundleError(f"{where}: is missing or damaged")
    fields = CENTRAL.unpack_from(data, position)
    flags, method, crc, packed, size, length = (fields[i] for i in (3, 4, 7, 8, 9, 10))
    attributes, offset = fields[15:17]
    raw = data[fixed : fixed + length]
    name = raw.decode("latin-1")  # never fails; a name that is not ASCII is refused as unsafe
    check_name(name, limits, where)
    where = f"{where}, {name!r},"
    if flags & 1:
        raise BundleError(f"{where} is encrypted; a bundle has no encrypted members")
    if (attributes >> 16) & FILE_TYPE == SYMLINK:
        raise BundleError(f"{where} is a symbolic link; a bundle has only files")
    if method:
        raise BundleError(f"{where} is compressed; the members of a bundle are stored as they are")
    if size > limits.member_bytes or packed != size:
        raise BundleError(
            f"{where} claims {packed:,} packed and {size:,} plain bytes; "
            f"both must be the same and at most {limits.member_bytes:,}"
        )
    entry = Entry(name, crc, size, offset)
    end = fixed + length
    if data[position:end] != entry.central():
        raise BundleError(
            f"{where} has zip fields that a bundle does not have; was it packed by another program?"
        )
    return entry, end


def check_name(name: str, limits: Limits, where: str) -> None:
    """Refuse a name that could lead out of a folder or be read in two ways.

    Raises:
        BundleError: absolute, with ``..``, a backslash, a NUL, a letter beyond ASCII, or too long.
    """
    if len(name) > limits.name_bytes:
        raise BundleError(f"{where}: the name {shorten(name)} is longer than {limits.name_bytes}")
    if not SAFE_NAME.fullmatch(name) or any(part.endswith(".") for part in name.split("/")):
        raise BundleError(
            f"{where}: the name {shorten(name)} is unsafe; names are relative and made of "
            "letters, digits and . _ + - /"
        )
