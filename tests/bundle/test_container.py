from __future__ import annotations

import io
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import bundles

from edge_tsad.bundle.container import Limits, pack, unpack
from edge_tsad.errors import BundleError

MEMBERS = {"a": b"first", "folder/b.bin": b"\0" * 100, "empty": b""}

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,20}", fullmatch=True).filter(
    lambda name: not name.endswith(".")
)


@given(st.dictionaries(names, st.binary(max_size=50), max_size=5))
def test_what_is_packed_is_unpacked(members: dict[str, bytes]) -> None:
    if len({name.casefold() for name in members}) == len(members):
        assert unpack(pack(members), "it") == members
    else:
        with pytest.raises(BundleError, match="twice"):
            unpack(pack(members), "it")


def test_the_order_of_the_members_makes_no_difference() -> None:
    assert pack(MEMBERS) == pack(dict(reversed(MEMBERS.items())))


def test_any_zip_program_reads_it() -> None:
    with zipfile.ZipFile(io.BytesIO(pack(MEMBERS))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == MEMBERS
        assert all(info.date_time == (1980, 1, 1, 0, 0, 0) for info in archive.infolist())


def symlink(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info


def encrypted() -> bytes:
    data = bytearray(bundles.zipped([("a", b"x")]))
    data[data.index(b"PK\1\2") + 8] |= 1
    return bytes(data)


def lying(size: int) -> bytes:
    """The directory claims another size than there is."""
    data = bytearray(pack({"a": b"x" * 10}))
    entry = data.index(b"PK\1\2")
    struct.pack_into("<2I", data, entry + 20, size, size)
    struct.pack_into("<2I", data, 18, size, size)
    return bytes(data)


def zip64() -> bytes:
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w") as archive,
        archive.open("a", "w", force_zip64=True) as member,
    ):
        member.write(b"x")
    return file.getvalue()


HOSTILE = {
    "compressed": (bundles.zipped([("a", b"x" * 9000)], zipfile.ZIP_DEFLATED), "is compressed"),
    "encrypted": (encrypted(), "is encrypted"),
    "symbolic link": (bundles.zipped([(symlink("a"), b"/etc/passwd")]), "symbolic link"),
    "absolute": (bundles.zipped([("/etc/passwd", b"")]), "unsafe"),
    "upwards": (bundles.zipped([("a/../../b", b"")]), "unsafe"),
    "drive": (bundles.zipped([("C:b", b"")]), "unsafe"),
    "backslash": (pack({"a_b": b""}).replace(b"a_b", b"a\\b"), "unsafe"),
    "hidden": (bundles.zipped([(".ssh/x", b"")]), "unsafe"),
    "folder": (bundles.zipped([("a/", b"")]), "unsafe"),
    "NUL": (pack({"a_b": b""}).replace(b"a_b", b"a\0b"), "unsafe"),
    "accent": (bundles.zipped([("é", b"")]), "unsafe"),
    "other normal form": (bundles.zipped([("e\u0301", b"")]), "unsafe"),
    "long name": (bundles.zipped([("a" * 200, b"")]), "longer than 100"),
    "other case": (pack({"a": b"", "A": b""}), "twice"),
    "twice": (pack({"a": b"x", "b": b"y"}).replace(b"b", b"a"), "twice"),
    "foreign zip": (bundles.zipped([("a", b"x")]), "another program"),
    "zip64": (zip64(), "another program|claims"),
    "trailing bytes": (pack(MEMBERS) + b"x", "no bundle or is cut short"),
    "trailing end": (pack(MEMBERS) + pack({}), "not where it should be"),
    "leading bytes": (b"x" + pack(MEMBERS), "not where it should be"),
    "claims too much": (lying(11), "cut short"),
    "claims far too much": (lying(2**32 - 1), "at most"),
    "claims too little": (lying(9), "damaged|checksum|no member"),
    "too many": (pack({f"m{i}": b"" for i in range(65)}), "at most 64"),
    "empty file": (b"", "no bundle"),
    "text": (b"hello, world" * 10, "no bundle"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives_are_refused(case: str) -> None:
    data, message = HOSTILE[case]
    with pytest.raises(BundleError, match=message) as caught:
        unpack(data, "x.tsad")
    assert str(caught.value).startswith("x.tsad: ")
    assert str(caught.value).isprintable()


def test_limits_are_kept() -> None:
    data = pack(MEMBERS)
    with pytest.raises(BundleError, match="larger than the 10 bytes"):
        unpack(data, "it", Limits(total_bytes=10))
    with pytest.raises(BundleError, match="at most 50"):
        unpack(data, "it", Limits(member_bytes=50))
    with pytest.raises(BundleError, match="at most 2 are"):
        unpack(data, "it", Limits(members=2))


@pytest.mark.parametrize("name", ["../a", "/a", "a//b", "", "a.", "ä", "a b", "a\n"])
def test_unsafe_names_are_not_written(name: str) -> None:
    with pytest.raises(BundleError, match="unsafe"):
        pack({name: b""})


def test_every_single_bit_matters() -> None:
    data = pack({"a": b"x", "b": b"y"})
    for position in range(len(data) * 8):
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(BundleError):
            unpack(bytes(changed), "it")


@given(st.binary(min_size=1, max_size=300))
def test_any_bytes_before_a_container_are_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        unpack(data + pack({"a": b"x"}), "it")
