from __future__ import annotations

import dataclasses
import errno
import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import bundles

from edge_tsad.bundle import Limits, open_bundle, parse_bundle, write_bundle, write_signature
from edge_tsad.bundle.container import pack
from edge_tsad.errors import BundleError, SignatureError

VALID = bundles.valid()


def test_round_trip(tmp_path: Path) -> None:
    path = write_bundle(tmp_path, bundles.manifest(), bundles.content())
    assert path == tmp_path / "pump-1.2.tsad"
    opened = open_bundle(path)
    assert opened.manifest == bundles.manifest()
    assert opened.signature is None
    assert not opened.verified
    assert {name: opened.read(name) for name in bundles.content()} == bundles.content()
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    content = bundles.content()
    write_bundle(tmp_path / "a", bundles.manifest(), content)
    write_bundle(tmp_path / "b", bundles.manifest(), dict(reversed(content.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == VALID


def test_the_digest_is_of_the_manifest_alone() -> None:
    opened = parse_bundle(VALID, "it")
    signed = parse_bundle(pack({**bundles.members(), "manifest.sig": b"any"}), "it")
    assert opened.digest == signed.digest
    assert opened.digest != parse_bundle(pack(bundles.members(counter=8)), "it").digest


def test_a_model_is_found_by_format_and_scheme() -> None:
    opened = parse_bundle(VALID, "it")
    assert opened.model("onnx").path == "model/a-fp32.onnx"
    assert opened.model("tflite", "dynamic").path == "model/a-int8.tflite"
    with pytest.raises(BundleError, match="has no onnx dynamic file; it has onnx none, tflite"):
        opened.model("onnx", "dynamic")
    with pytest.raises(BundleError, match="has no member 'nothing'"):
        opened.read("nothing")


def test_an_old_counter_is_refused() -> None:
    opened = parse_bundle(VALID, "it")
    opened.require_counter(7)
    with pytest.raises(SignatureError, match="its counter is 7, the least accepted here is 8"):
        opened.require_counter(8)


def without(name: str) -> dict[str, bytes]:
    return {key: data for key, data in bundles.members().items() if key != name}


DAMAGED = {
    "no manifest": (without("manifest.json"), "has no manifest.json"),
    "unlisted": ({**bundles.members(), "run.sh": b"#!"}, "'run.sh' is not listed"),
    "missing": (without("card.md"), "'card.md' is listed in manifest.json but missing"),
    "other hash": ({**bundles.members(), "card.md": b"# Cord\n"}, "'card.md' is altered"),
    "other size": ({**bundles.members(), "card.md": b""}, "'card.md' has 0 bytes; 7 are listed"),
    "large manifest": ({**without("manifest.json"), "manifest.json": b" " * (3 << 20)}, "larger"),
    "large signature": ({**bundles.members(), "manifest.sig": b" " * 9000}, "larger"),
    "damaged manifest": ({**bundles.members(), "manifest.json": b"{"}, "is no JSON"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_bundles_are_refused(case: str) -> None:
    content, message = DAMAGED[case]
    with pytest.raises(BundleError, match=message) as caught:
        parse_bundle(pack(content), "x.tsad")
    assert str(caught.value).startswith("x.tsad: ")


def test_a_bundle_that_could_not_be_opened_is_not_written(tmp_path: Path) -> None:
    for files in ({}, {**bundles.content(), "more": b""}, {**bundles.content(), "card.md": b""}):
        with pytest.raises(BundleError):
            write_bundle(tmp_path / "x.tsad", bundles.manifest(), files)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(VALID)
    cases = {
        tmp_path / "nothing": "does not exist",
        tmp_path: "is no regular file",
        tmp_path / "pipe": "is no regular file",
        Path("/dev/zero"): "is no regular file",
        Path("a\0b"): "does not exist|could not be read",
    }
    for path, message in cases.items():
        with pytest.raises(BundleError, match=message):
            open_bundle(path)
    with pytest.raises(BundleError, match="larger than the 100 bytes"):
        open_bundle(tmp_path / "large", Limits(total_bytes=100))


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_failing_disk_leaves_what_was_there(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_bundle(tmp_path, bundles.manifest(), bundles.content())
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "write":
        monkeypatch.setattr(os, "fdopen", full)
    elif call == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(BundleError, match=r"no space is left on the device; nothing was changed"):
        write_bundle(path, bundles.manifest(counter=9), bundles.content())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="could not be written: no such file"):
        write_bundle(tmp_path / "no" / "x.tsad", bundles.manifest(), bundles.content())


def test_a_signature_is_added_and_nothing_else_changes(tmp_path: Path) -> None:
    opened = parse_bundle(VALID, "it")
    write_signature(tmp_path / "signed.tsad", opened, b"signature")
    signed = open_bundle(tmp_path / "signed.tsad")
    assert signed.signature == b"signature"
    assert signed.manifest_bytes == opened.manifest_bytes
    with zipfile.ZipFile(tmp_path / "signed.tsad") as archive:
        assert archive.testzip() is None


class Refuser:
    def verify(self, manifest: bytes, signature: bytes | None) -> object:
        raise SignatureError("is not liked")


def test_the_signature_is_checked_before_the_manifest_is_parsed() -> None:
    data = pack({**bundles.members(), "manifest.json": b"{"})
    with pytest.raises(SignatureError, match=r"^x\.tsad: is not liked$"):
        parse_bundle(data, "x.tsad", trusted=Refuser())


def test_members_are_read_only_views() -> None:
    opened = parse_bundle(VALID, "it")
    assert dataclasses.is_dataclass(opened)
    with pytest.raises(TypeError):
        opened.members["card.md"][0] = 0  # type: ignore[index]


def refused_or_equal(data: bytes) -> None:
    if data == VALID:
        parse_bundle(data, "it")
        return
    with pytest.raises(BundleError) as caught:
        parse_bundle(data, "it")
    assert str(caught.value).isprintable()


positions = st.integers(0, len(VALID) - 1)


@given(positions, st.integers(1, 255))
@settings(max_examples=300)
def test_a_changed_byte_is_refused(position: int, change: int) -> None:
    data = bytearray(VALID)
    data[position] ^= change
    refused_or_equal(bytes(data))


@given(positions, positions)
def test_a_part_is_refused(start: int, stop: int) -> None:
    refused_or_equal(VALID[:start])
    refused_or_equal(VALID[start:])
    refused_or_equal(VALID[: min(start, stop)] + VALID[max(start, stop) :])


@given(positions, st.binary(min_size=1, max_size=40))
def test_inserted_bytes_are_refused(position: int, more: bytes) -> None:
    refused_or_equal(VALID[:position] + more + VALID[position:])


directory = st.integers(VALID.index(b"PK\1\2"), len(VALID) - 1)


@given(st.lists(st.tuples(directory, st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=300)
def test_a_damaged_zip_directory_is_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(VALID)
    for position, value in changes:
        data[position] = value
    refused_or_equal(bytes(data))
