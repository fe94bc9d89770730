"""CSV, standard input and the system's own figures."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_tsad.errors import ConfigError, DataError
from edge_tsad.registry import SOURCES
from edge_tsad.runtime.sources.base import Batch
from edge_tsad.runtime.sources.columns import Columns, parse_number, parse_time_ns
from edge_tsad.runtime.sources.csv import CsvOptions, CsvSource
from edge_tsad.runtime.sources.stdin import StdinOptions, StdinSource
from edge_tsad.runtime.sources.system import QUANTITIES, SystemOptions, SystemSource
from edge_tsad.types import Channel, Timing

SECOND = 10**9
TIMING = Timing(SECOND, 4, 1, 0, 1, 4)
UNRATED = Timing(SECOND, 4, 1, 0, 1, 4, has_rate=False)
AB = (Channel("a"), Channel("b"))
A = (Channel("a"),)


def read(source: CsvSource | StdinSource) -> Batch:
    batches = list(source.batches(threading.Event()))
    return Batch(
        np.concatenate([batch.times_ns for batch in batches]),
        np.concatenate([batch.values for batch in batches]),
    )


def csv_source(
    folder: Path, text: str, channels: tuple[Channel, ...] = AB, timing: Timing = TIMING
) -> CsvSource:
    path = folder / "x.csv"
    path.write_text(text)
    return CsvSource(CsvOptions(str(path), "max"), channels, timing)


@pytest.mark.parametrize("name", SOURCES)
def test_each_source_has_options_and_keeps_to_the_protocol(name: str) -> None:
    kind = SOURCES[name]
    assert hasattr(kind.Options, "at") and hasattr(kind, "batches")


def test_a_header_finds_the_channels_in_any_order_among_others(tmp_path: Path) -> None:
    text = "b,note,timestamp,a\n2,x,1970-01-01T00:00:01Z,1\n4,y,1970-01-01T00:00:02.5Z,\n"
    batch = read(csv_source(tmp_path, text))
    assert batch.times_ns.tolist() == [SECOND, 2_500_000_000]
    np.testing.assert_array_equal(batch.values, np.array([[1, 2], [math.nan, 4]], np.float32))
    assert batch.values.dtype == np.float32


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_without_a_header_the_columns_are_the_channels(tmp_path: Path, delimiter: str) -> None:
    text = "5,1,2\n6,3,4\n".replace(",", delimiter)
    batch = read(csv_source(tmp_path, text))
    assert batch.times_ns.tolist() == [5 * SECOND, 6 * SECOND]
    assert batch.values.tolist() == [[1, 2], [3, 4]]


def test_rows_without_times_are_counted_from_the_clock_or_from_zero(tmp_path: Path) -> None:
    before = time.time_ns()
    rated = read(csv_source(tmp_path, "1\n2\n3\n", A))
    assert np.diff(rated.times_ns).tolist() == [SECOND, SECOND]
    assert before - SECOND <= rated.times_ns[0] <= time.time_ns()
    assert read(csv_source(tmp_path, "1\n2\n3\n", A, UNRATED)).times_ns.tolist() == [
        0, SECOND, 2 * SECOND,
    ]  # fmt: skip


def test_without_a_rate_times_in_the_file_do_not_count(tmp_path: Path) -> None:
    batch = read(csv_source(tmp_path, "t,a\n100,1\n700,2\n", A, UNRATED))
    assert batch.times_ns.tolist() == [0, SECOND]


def test_malformed_rows_are_counted_said_once_and_keep_their_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "a,b\n1,2\nx,3\n4\n5,6,7\n8,inf\n\n9,10\n"
    source = csv_source(tmp_path, text, timing=UNRATED)
    batch = read(source)
    assert batch.values.tolist() == [[1, 2], [9, 10]]
    assert batch.times_ns.tolist() == [0, 5 * SECOND]
    assert source.complaints.counts == {"MALFORMED": 4}
    assert len(caplog.records) == 1 and "line 3" in caplog.text


def test_values_beyond_float32_are_missing(tmp_path: Path) -> None:
    assert np.isnan(read(csv_source(tmp_path, "a\n1e300\n", A)).values).all()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("time,c\n1,2\n", "no column 'a', 'b'"),
        ("1,2,3,4\n", "has 4 columns and no header"),
        ("", "is empty"),
        ("\n1,2\n", "empty line"),
    ],
)
def test_a_file_that_cannot_serve_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        csv_source(tmp_path, text)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        CsvSource(CsvOptions(str(tmp_path / "no.csv")), A, TIMING)


def test_a_missing_time_column_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no time column 'when'"):
        CsvSource(CsvOptions(str(tmp_path / "x.csv"), "max", "when"), AB, TIMING)


def test_a_replay_keeps_its_pace(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("t,a\n" + "".join(f"{i},{i}\n" for i in range(11)))
    begun = time.monotonic()
    batches = list(CsvSource(CsvOptions(str(path), 20.0), A, TIMING).batches(threading.Event()))
    assert 0.45 < time.monotonic() - begun < 2
    assert sum(map(len, batches)) == 11 and len(batches) > 3


def test_a_replay_stops_while_it_waits(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("t,a\n0,1\n100000,2\n200000,3\n")
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    begun = time.monotonic()
    assert [len(b) for b in CsvSource(CsvOptions(str(path)), A, TIMING).batches(stop)] == [1]
    assert time.monotonic() - begun < 5


def test_speed_must_be_positive() -> None:
    with pytest.raises(ConfigError, match=r"source\.speed"):
        CsvOptions("x", 0)


def stdin(
    data: bytes,
    channels: tuple[Channel, ...] = AB,
    timing: Timing = TIMING,
    spaced: bool = False,
) -> tuple[StdinSource, Batch]:
    reading, writing = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(writing, data), os.close(writing)))
    writer.start()
    source = StdinSource(StdinOptions(spaced), channels, timing, reading)
    try:
        return source, read(source)
    finally:
        writer.join()
        os.close(reading)


@pytest.mark.parametrize(
    "line",
    [
        b"7,1,2\n",
        b"7 1 2\n",
        b"7; 1; 2\n",
        b"b,time,a\n2,7,1\n",
        b"[7, 1, 2]\n",
        b'{"time": 7, "a": 1, "b": 2}\n',
        b'{"timestamp": "1970-01-01T00:00:07Z", "a": 1, "b": 2, "other": "x"}\n',
        b"7,1,2",
    ],
)
def test_lines_of_every_kind_say_the_same(line: bytes) -> None:
    source, batch = stdin(line)
    assert batch.times_ns.tolist() == [7 * SECOND] and batch.values.tolist() == [[1, 2]]
    assert not source.live and not source.complaints.counts


def test_lines_without_times_are_stamped_on_arrival() -> None:
    before = time.time_ns()
    source, batch = stdin(b"1 2\n3 nan\n")
    assert source.live
    assert all(before <= t <= time.time_ns() for t in batch.times_ns)
    assert math.isnan(batch.values[1, 1])


def test_lines_without_a_rate_are_counted_and_bad_ones_keep_their_place() -> None:
    source, batch = stdin(b"1\nbad\n\n3\n", A, UNRATED)
    assert batch.times_ns.tolist() == [0, 2 * SECOND] and not source.live
    assert source.complaints.counts == {"MALFORMED": 1}


def test_lines_may_be_spaced_by_the_step() -> None:
    _, batch = stdin(b"1\n2\n3\n", A, TIMING, spaced=True)
    assert np.diff(batch.times_ns).tolist() == [SECOND, SECOND]


@pytest.mark.parametrize(
    "junk",
    [
        b"1,2,3,4,5\n", b"{}\n", b'{"a": "x"}\n', b'{"a": true}\n', b"[1]\n", b"{\n", b'"a"\n',
        b"\xff\xfe\x00\n", b"1 x\n", b"[" * 3000 + b"\n", b"x" * 70_000 + b"\n", b"1 inf\n",
        b'{"time": 1e400, "a": 1}\n', b"999999999999999999999,1,2\n",
    ],
)  # fmt: skip
def test_junk_is_counted_and_the_rest_goes_on(junk: bytes) -> None:
    source, batch = stdin(b"1,2,3\n" + junk + b"4,5,6\n")
    assert batch.values.tolist() == [[2, 3], [5, 6]]
    assert source.complaints.counts["MALFORMED"] >= 1


@given(st.binary(max_size=300))
def test_no_bytes_make_standard_input_fail(data: bytes) -> None:
    _, batch = stdin(b"1,2,3\n" + data.replace(b"\r", b"") + b"\n")
    assert len(batch) >= 1 and np.isfinite(batch.values[0]).all()


@given(st.text(max_size=40))
def test_cells_are_numbers_or_value_errors(text: str) -> None:
    for parse in (parse_number, parse_time_ns):
        with contextlib.suppress(ValueError, OverflowError):
            parse(text)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("1.5", 1_500_000_000),
        ("1700000000", 1_700_000_000 * SECOND),
        ("1700000000123", 1_700_000_000_123_000_000),
        ("1700000000123456", 1_700_000_000_123_456_000),
        ("1700000000123456789", 1_700_000_000_123_456_789),
        ("1970-01-02", 86_400 * SECOND),
        ("1970-01-01 00:00:01", SECOND),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T23:59:59Z", -SECOND),
    ],
)
def test_times(text: str, nanoseconds: int) -> None:
    assert parse_time_ns(text) == nanoseconds


def test_a_channel_called_time_is_no_time() -> None:
    columns = Columns.named(["t", "time"], [Channel("t")])
    assert columns.time == 1 and columns.channels == (0,)


def test_the_system_measures_itself() -> None:
    channels = tuple(Channel(name) for name in QUANTITIES)
    timing = Timing(SECOND // 10, 4, 1, 0, 1, 4)
    source = SystemSource(SystemOptions(), channels, timing)
    stop = threading.Event()
    batches = []
    for batch in source.batches(stop):
        batches.append(batch)
        if len(batches) == 3:
            stop.set()
    last = batches[-1].values[0]
    assert source.live and len(batches) == 3
    assert 0 <= last[0] <= 100 * (os.cpu_count() or 1) and 0 < last[1] < 100 and last[3] >= 0


def test_the_system_has_no_other_quantities() -> None:
    with pytest.raises(DataError, match="has no 'pressure'; it has cpu_percent"):
        SystemSource(SystemOptions(), (Channel("pressure"),), TIMING)


def test_missing_psutil_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psutil", None)
    with pytest.raises(ConfigError, match=r'pip install "edge-tsad\[system\]"'):
        SystemSource(SystemOptions(), (Channel("cpu_percent"),), TIMING)
