"""The recording: bounded, whole after every cut, and readable as a series."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_tsad.errors import ConfigError, DataError
from edge_tsad.runtime import history as module
from edge_tsad.runtime.history import History
from edge_tsad.runtime.recording import export
from edge_tsad.runtime.segments import (
    Layout,
    decode_block,
    encode_block,
    read_recording,
    scan,
    segments,
)
from edge_tsad.types import Cells, Channel, Now

SECOND = 10**9
LAYOUT = Layout(SECOND, (Channel("flow", "l/min"), Channel("pressure")))
START = 1_800_000_000


def cells(begin: int, count: int, seed: int = 0) -> Cells:
    rng = np.random.default_rng(seed + begin)
    values = rng.normal(size=(count, 2)).astype(np.float32)
    observed = (rng.uniform(size=(count, 2)) > 0.2).astype(np.float32)
    return Cells(np.arange(begin, begin + count, dtype=np.int64), values * observed, observed)


def expected(part: Cells) -> np.ndarray:
    return np.where(part.observed > 0, part.values, np.nan).astype(np.float32)


def at(seconds: float) -> Now:
    return Now(seconds, 0)


def test_what_was_recorded_is_read_again_over_restarts(tmp_path: Path) -> None:
    whole = cells(START, 1000)
    for begin in range(0, 1000, 100):
        history = History(tmp_path, LAYOUT)
        part = slice(begin, begin + 100)
        history.add(Cells(whole.index[part], whole.values[part], whole.observed[part]), at(0))
        history.close(at(1))
    recording = read_recording(tmp_path)
    assert recording.layout == LAYOUT and recording.damaged == recording.other == 0
    np.testing.assert_array_equal(recording.index, whole.index)
    np.testing.assert_array_equal(recording.values, expected(whole))
    assert len(segments(tmp_path)) == 1, "a restart goes on in the same segment"
    last = read_recording(tmp_path, last_ns=150 * SECOND)
    np.testing.assert_array_equal(last.index, whole.index[-150:])


def test_rows_are_stored_when_they_are_due_and_not_before(tmp_path: Path) -> None:
    history = History(tmp_path, LAYOUT, sync_s=60)
    history.add(cells(START, 5), at(10))
    history.tick(at(69))
    assert history.size == 0
    history.add(cells(START + 5, 5), at(69))
    history.tick(at(70))
    assert len(read_recording(tmp_path).index) == 10
    history.close(at(70))


def test_it_never_holds_more_than_its_bound_and_the_newest_stays(tmp_path: Path) -> None:
    history = History(tmp_path, LAYOUT, max_bytes=1 << 16, sync_s=0.5)
    for i in range(400):
        history.add(cells(START + 100 * i, 100), at(i))
        history.tick(at(i + 0.6))
        on_disk = sum(path.stat().st_size for path in segments(tmp_path))
        assert on_disk == history.size <= 1 << 16
    history.close(at(400))
    recording = read_recording(tmp_path)
    assert recording.index[-1] == START + 39_999 and 1000 < len(recording.index) < 40_000
    assert (np.diff(recording.index) == 1).all()
    assert history.written > 3 << 16 and history.syncs >= 400


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_cut_anywhere_costs_only_what_was_not_synced(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    history = History(folder, LAYOUT, sync_s=0)
    ends = []
    for i in range(5):
        history.add(cells(START + 10 * i, 10), at(i))
        history.tick(at(i))
        ends.append(history.size)
    history.close(at(9))
    (file,) = segments(folder)
    whole = file.read_bytes()
    cut = data.draw(st.integers(ends[0], len(whole)))
    junk = data.draw(st.binary(max_size=20))
    file.write_bytes(whole[:cut] + junk)
    stored = 10 * sum(end <= cut for end in ends)
    assert len(read_recording(folder).index) == stored
    history = History(folder, LAYOUT)
    history.add(cells(START + 1000, 10), at(0))
    history.close(at(0))
    recording = read_recording(folder)
    assert recording.index[-1] == START + 1009 and len(recording.index) == stored + 10
    assert recording.damaged == 0


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_flipped_byte_gives_wrong_values(
    tmp_path_factory: pytest.TempPathFactory, position: int, flip: int
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    part = cells(START, 50)
    data = LAYOUT.header() + encode_block(part, 0, 25) + encode_block(part, 25, 50)
    broken = bytearray(data)
    broken[position % len(data)] ^= flip
    (folder / "00000001.seg").write_bytes(bytes(broken))
    try:
        recording = read_recording(folder)
    except DataError:
        return
    assert len(recording.index) in (25, 50)
    np.testing.assert_array_equal(recording.values, expected(part)[: len(recording.index)])


@given(st.binary(max_size=300))
def test_no_bytes_make_the_reader_fail_otherwise(data: bytes) -> None:
    layout, end, blocks = scan(data)
    assert (layout is not None or not blocks) and end <= len(data)
    scan(LAYOUT.header() + b"BLK1" + data)


def test_a_block_that_unpacks_to_more_than_it_says_is_refused() -> None:
    bomb = zlib.compress(b"\0" * 50_000_000)
    with pytest.raises(DataError, match="another size"):
        decode_block(bomb, 10, 2)


def test_a_header_of_another_format_or_shape_is_left_out(tmp_path: Path) -> None:
    for text in (b'{"format": 2}', b"[]", b"{", b'{"step_ns": 0, "channels": [], "format": 1}'):
        header = struct.pack("<8sII", b"ETSHIST1", len(text), zlib.crc32(text)) + text
        (tmp_path / "00000001.seg").write_bytes(header)
        with pytest.raises(DataError, match="holds no recording"):
            read_recording(tmp_path)


def test_times_may_go_back_and_the_later_written_row_stays(tmp_path: Path) -> None:
    history = History(tmp_path, LAYOUT)
    first, again = cells(START, 100), cells(START + 50, 100, seed=7)
    history.add(first, at(0))
    history.add(again, at(0))
    history.close(at(0))
    recording = read_recording(tmp_path)
    assert recording.index.tolist() == list(range(START, START + 150))
    np.testing.assert_array_equal(recording.values[:50], expected(first)[:50])
    np.testing.assert_array_equal(recording.values[50:], expected(again))


def test_other_channels_begin_a_new_segment_and_old_ones_are_left_out(tmp_path: Path) -> None:
    history = History(tmp_path, LAYOUT)
    history.add(cells(START, 10), at(0))
    history.close(at(0))
    other = Layout(SECOND, (Channel("a"), Channel("b")))
    history = History(tmp_path, other)
    history.add(cells(START + 10, 5), at(0))
    history.close(at(0))
    recording = read_recording(tmp_path)
    assert (recording.layout, len(recording.index), recording.other) == (other, 5, 1)


def test_a_full_disk_delays_rows_and_leaves_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(tmp_path, LAYOUT, sync_s=0)
    history.add(cells(START, 10), at(0))
    history.tick(at(0))

    class FullDisk:
        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        def fsync(self, _: int) -> None:
            raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(module, "os", FullDisk())
        history.add(cells(START + 10, 10), at(1))
        with pytest.raises(DataError, match="no space is left"):
            history.tick(at(1))
        assert history.failing and len(read_recording(tmp_path).index) == 10
    history.tick(at(2))
    assert not history.failing and history.dropped == 0
    recording = read_recording(tmp_path)
    assert len(recording.index) == 20 and recording.damaged == 0
    history.close(at(2))


def test_while_the_disk_is_full_memory_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(tmp_path, LAYOUT, sync_s=1e9)
    monkeypatch.setattr(module, "MOST_ROWS", 10)
    monkeypatch.setattr(
        History, "_append", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "bad"))
    )
    for i in range(100):
        with pytest.raises(DataError):
            history.add(cells(START + 10 * i, 10), at(i))
    assert history.dropped == 1000 - 160
    with pytest.raises(DataError):
        history.close(at(0))


def test_two_writers_and_bad_bounds_are_refused(tmp_path: Path) -> None:
    history = History(tmp_path, LAYOUT)
    with pytest.raises(ConfigError, match="is written by another process"):
        History(tmp_path, LAYOUT)
    history.close(at(0))
    with pytest.raises(ConfigError, match=r"history\.max_mb"):
        History(tmp_path, LAYOUT, max_bytes=10)
    with pytest.raises(ConfigError, match="cannot be made"):
        (tmp_path / "file").write_text("")
        History(tmp_path / "file" / "x", LAYOUT)


@pytest.mark.parametrize("name", ["x.csv", "x.npz"])
def test_an_export_is_read_by_training_as_the_same_series(tmp_path: Path, name: str) -> None:
    from edge_tsad.training.series import load

    history = History(tmp_path / "h", LAYOUT)
    part = cells(START, 300)
    history.add(part, at(0))
    history.close(at(0))
    recording = read_recording(tmp_path / "h")
    export(recording, tmp_path / name)
    series, folder = load(tmp_path / name), load(tmp_path / "h")
    for each in (series, folder):
        assert each.step_ns == SECOND and each.has_rate
        np.testing.assert_array_equal(each.times_ns, part.index * SECOND)
        np.testing.assert_array_equal(each.values, expected(part))
        assert [channel.name for channel in each.channels] == ["flow", "pressure"]
    assert folder.channels == LAYOUT.channels, "the folder keeps the units"
    with pytest.raises(DataError, match=r"neither a \.csv nor an \.npz"):
        export(recording, tmp_path / "x.txt")


def test_a_recording_without_a_rate_has_no_times(tmp_path: Path) -> None:
    from edge_tsad.training.series import load

    history = History(tmp_path / "h", Layout(SECOND, LAYOUT.channels, has_rate=False))
    history.add(cells(0, 50), at(0))
    history.close(at(0))
    recording = read_recording(tmp_path / "h")
    for name in ("x.csv", "x.npz"):
        export(recording, tmp_path / name)
        assert not load(tmp_path / name).has_rate
    assert not load(tmp_path / "h").has_rate
    assert load(tmp_path / "h", columns=["pressure"]).values.shape == (50, 1)
    with pytest.raises(DataError, match="no channel 'x'"):
        load(tmp_path / "h", columns=["x"])
    with pytest.raises(DataError, match="no choice of label"):
        load(tmp_path / "h", label="flow")
