from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from edge_tsad.errors import DataError
from edge_tsad.training.series import Series, from_frame, load, read_csv, read_npz
from edge_tsad.types import NANOSECONDS, Channel

SECOND = 10**9


def write(folder: Path, text: str) -> Path:
    path = folder / "data.csv"
    path.write_text(text)
    return path


def test_a_csv_with_times_labels_and_holes(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "time,pressure,flow,label\n"
        "2026-01-01T00:00:00Z,1.5,,0\n"
        "2026-01-01T00:01:00Z,2.5,7,1\n"
        "2026-01-01T00:02:00Z,NaN,8,0\n",
    )
    series = read_csv(path)
    assert [channel.name for channel in series.channels] == ["pressure", "flow"]
    assert series.step_ns == 60 * SECOND
    assert series.has_rate
    assert series.times_ns[0] == 1767225600 * SECOND
    np.testing.assert_array_equal(series.values, [[1.5, np.nan], [2.5, 7], [np.nan, 8]])
    assert series.labels is not None
    assert series.labels.tolist() == [0, 1, 0]
    assert np.isnan(series.without_anomalies().values[1]).all()
    chosen = read_csv(path, columns=["flow"], step_ns=SECOND)
    assert chosen.values.shape == (3, 1)
    assert chosen.step_ns == SECOND


@pytest.mark.parametrize("unit", [1, 1000, 10**6, SECOND])
def test_numbers_are_s_ms_us_or_ns_since_the_epoch(unit: int) -> None:
    start = 1767225600 * SECOND // unit
    frame = pd.DataFrame({"ts": start + np.arange(5) * (SECOND // unit) * 10, "x": range(5)})
    series = from_frame(frame)
    assert series.times_ns[0] == 1767225600 * SECOND
    assert series.step_ns == 10 * SECOND


def test_row_numbers_and_no_times_tell_no_rate(tmp_path: Path) -> None:
    numbered = from_frame(pd.DataFrame({"timestamp": range(4), "x": [1, 2, 3, 4]}))
    bare = read_csv(write(tmp_path, "1.0\n2.0\n3.5\n"))
    for series in (numbered, bare):
        assert not series.has_rate
        assert series.step_ns == SECOND
        assert series.times_ns.tolist() == [k * SECOND for k in range(len(series))]
    assert bare.values[:, 0].tolist() == [1, 2, 3.5]
    assert from_frame(pd.DataFrame({"x": [1.0, 2.0]}), step_ns=5).has_rate


def test_a_nameless_first_column_is_an_index_and_no_channel(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(",time,v\n" + "\n".join(f"{k},{60 * k},{k % 5}" for k in range(9)))
    numbered = read_csv(path)
    assert [channel.name for channel in numbered.channels] == ["v"]
    assert numbered.step_ns == 60 * NANOSECONDS
    path.write_text(",v\n" + "\n".join(f"2024-01-01T00:0{k}:00,{k % 5}" for k in range(9)))
    dated = read_csv(path)
    assert [channel.name for channel in dated.channels] == ["v"]
    assert dated.step_ns == 60 * NANOSECONDS


def test_a_second_column_of_labels_is_a_channel_only_if_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("time,v,label,anomaly\n" + "\n".join(f"{k * 60},1,0,2" for k in range(9)))
    with pytest.raises(DataError, match="'anomaly' is called like labels, as 'label' is"):
        read_csv(path)
    chosen = read_csv(path, columns=["v", "anomaly"])
    assert [channel.name for channel in chosen.channels] == ["v", "anomaly"]


def test_a_date_index_is_the_time_and_jitter_is_rounded_away() -> None:
    rng = np.random.default_rng(0)
    times = pd.Timestamp("2026-01-01") + pd.to_timedelta(
        np.arange(500) + rng.uniform(-0.004, 0.004, 500), unit="s"
    )
    series = from_frame(pd.DataFrame({"x": rng.normal(size=500)}, index=times))
    assert series.step_ns == SECOND
    assert series.has_rate


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("", {}, "is empty"),
        ("a,b\n", {}, "no rows"),
        ("a\n1\n2\n", {"columns": ["b"]}, "no column 'b'"),
        ("a\n1\n2\n", {"time": "when"}, "no column 'when'"),
        ("a\n1\n2\n", {"label": "bad"}, "no column 'bad'"),
        ("a\n1\ntwo\n", {}, "'two' in data row 2"),
        ("a\n1\ninf\n", {}, "infinite in data row 2"),
        ("a\n1\n1e300\n", {}, "32-bit"),
        ("time,a\n2026-01-02,1\n2026-01-01,2\n", {}, "data row 2 .*is not later"),
        ("time,a\n5e8,1\n5e8,2\n", {}, "remove duplicates"),
        ("time,a\nyesterday,1\n2026-01-01,2\n", {}, "data row 1 .*cannot be read"),
        ("time,a\n,1\n7,2\n", {}, "data row 1 .*cannot be read"),
        ("time,a\n1,1\n99999999999,2\n", {}, "data row 2 .*cannot be read"),
        ("time,a\nsoon,1\nlater,2\n", {}, "data row 1 .*cannot be read"),
        ("a,label\n1,0\n2,\n", {}, "label column 'label' is empty in data row 2"),
        ("a,label\n1,0\n2,yes\n", {}, "'label' holds 'yes'"),
        ("label\n1\n0\n", {}, "is empty"),
        ("a\n1\n2\n", {"step_ns": 0}, "less than 1"),
    ],
)
def test_bad_csv_is_refused_in_one_sentence(
    tmp_path: Path, text: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words) as error:
        read_csv(write(tmp_path, text), **options)
    assert "\n" not in str(error.value)
    assert "data.csv" in str(error.value)


def test_a_missing_file_a_folder_and_bytes_are_refused(tmp_path: Path) -> None:
    binary = tmp_path / "x.npz"
    binary.write_bytes(b"PK\x03\x04 and no more")
    empty = tmp_path / "empty.npz"
    empty.write_bytes(b"")
    pickled = tmp_path / "pickle.npz"
    np.savez(pickled, values=np.array([{}], object))
    (tmp_path / "bytes.csv").write_bytes(bytes(range(256)))
    for name in ("none.csv", "none.npz", "", "x.npz", "empty.npz", "pickle.npz", "bytes.csv"):
        with pytest.raises(DataError) as error:
            load(tmp_path / name)
        assert "\n" not in str(error.value), name


def test_npz_with_and_without_times(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    values = np.arange(8.0).reshape(4, 2)
    times = (100 + np.arange(4)) * SECOND
    np.savez(path, values=values, times_ns=times, labels=[0, 0, 1, 0], channels=["p", "q"])
    series = load(path)
    np.testing.assert_array_equal(series.values, values)
    assert series.times_ns.tolist() == times.tolist()
    assert [channel.name for channel in series.channels] == ["p", "q"]
    assert series.labels is not None
    many = tmp_path / "many.npz"
    np.savez(many, first=np.arange(5.0), second=np.zeros((5, 3)))
    assert read_npz(many, key="first").values[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert read_npz(many, key="second").values.shape == (5, 3)
    assert not read_npz(many, key="first").has_rate
    with pytest.raises(DataError, match=r"no array 'values'.*first, second"):
        read_npz(many)
    np.savez(path, values=values, times_ns=times[:3])
    with pytest.raises(DataError, match="of one n"):
        load(path)
    np.savez(path, values=values, channels=["p"])
    with pytest.raises(DataError, match="1 channel names"):
        load(path)


def test_a_series_checks_itself() -> None:
    times, values = np.arange(3, dtype=np.int64), np.zeros((3, 1), np.float32)
    channels = (Channel("x"),)
    with pytest.raises(DataError, match="is empty"):
        Series(times[:0], values[:0], channels, 1)
    with pytest.raises(DataError, match="do not fit"):
        Series(times, values, channels * 2, 1)
    with pytest.raises(DataError, match="do not increase"):
        Series(times[::-1], values, channels, 1)
    with pytest.raises(DataError, match="labels"):
        Series(times, values, channels, 1, labels=np.array([0, 1], np.uint8))


def test_cells_come_from_the_resampler_and_gaps_split_segments() -> None:
    times = np.array([0, 1, 2, 10, 11, 40], np.int64) * SECOND
    values = np.array([[1], [2], [np.nan], [4], [5], [6]], np.float32)
    series = Series(times, values, (Channel("x"),), SECOND)
    cells = series.cells()
    assert cells.index.tolist() == [0, 1, 10, 11, 40]
    parts = series.segments(9)
    assert [len(part) for part in parts] == [12, 1]
    assert parts[0].values[:, 0].tolist() == [1] + [2] * 9 + [4, 5]
    assert parts[0].observed[:, 0].tolist() == [1, 1] + [0] * 8 + [1, 1]
    assert series.part(3, 5).values[:, 0].tolist() == [4, 5]
