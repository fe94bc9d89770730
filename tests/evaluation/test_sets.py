import json
import re

import numpy as np
import pytest
from oracles.toy_candidate import planted, write_set

from edge_tsad.errors import ConfigError, DataError
from edge_tsad.evaluation.sets import load_set


def test_a_set_is_found_by_path_and_by_name(tmp_path):
    path = write_set(tmp_path, "toys", [planted("a"), planted("b", seed=1)])
    by_path, by_name = load_set(path), load_set("toys", tmp_path)
    assert [series.name for series in by_path.series] == ["a", "b"]
    assert by_name.name == by_path.name == "toys"
    first = by_path.series[0]
    assert first.values.shape == (1200, 1)
    assert first.train_end == 500
    assert first.contiguous
    assert np.flatnonzero(first.labels).tolist() == list(range(800, 830))
    assert not by_path.left_out


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"length": 1199}, "labels are for 1199 points, but it has 1200"),
        ({"regions": [[800, 1201]]}, r"region \[800, 1201\] does not lie within"),
        ({"regions": [[5, 5]]}, "does not lie within"),
        ({"regions": None}, "has no regions"),
        ({"regions": [[500, 1200]]}, "everything in its test part is anomalous"),
        ({"train_end": 1300}, "does not lie within its 1200 points"),
        ({"train_end": 1200}, "has no test part"),
        ({"train_end": 0, "regions": [[3, 9]]}, "has no history"),
        ({"train_end": 0, "regions": [[0, 1200]]}, "no normal recording"),
        ({"name": "z"}, "has labels but no array"),
    ],
)
def test_a_bad_series_is_left_out_with_its_reason_and_the_rest_is_run(tmp_path, change, word):
    path = write_set(tmp_path, "toys", [planted("a"), planted("b")])
    entries = json.loads(path.with_suffix(".json").read_text())
    entries[0] |= change
    path.with_suffix(".json").write_text(json.dumps(entries))
    loaded = load_set(path)
    assert [series.name for series in loaded.series] == ["b"]
    assert re.search(word, " ".join(loaded.left_out.values()))


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (np.full(1200, np.nan), "holds no value"),
        (np.r_[np.full(500, np.nan), np.zeros(700)], "not one value comes before its test part"),
        (np.r_[0, np.inf, np.zeros(1198)], "holds infinity, .* at point 1"),
        (np.r_[np.zeros(1199), 1e300], "more than 32-bit numbers hold, at point 1199"),
        (np.array([{}] * 1200), "Object arrays"),
        (np.zeros(1200, complex), "is not an array of numbers"),
    ],
    ids=str,
)
def test_values_that_cannot_be_used_cost_their_series_alone(tmp_path, values, word):
    path = write_set(tmp_path, "toys", [planted("a"), planted("b")])
    np.savez(path, a=values, b=planted("b").values[:, 0])
    loaded = load_set(path)
    assert [series.name for series in loaded.series] == ["b"]
    assert re.search(word, loaded.left_out["a"])


def test_a_name_that_comes_twice_is_refused(tmp_path):
    path = write_set(tmp_path, "toys", [planted("a"), planted("a")])
    with pytest.raises(DataError, match="'a' is in it more than once"):
        load_set(path)


def test_a_bare_array_is_no_set(tmp_path):
    path = write_set(tmp_path, "toys", [planted("a")])
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="cannot be read as NPZ"):
        load_set(path)


def test_what_is_no_set_at_all_is_refused(tmp_path):
    with pytest.raises(DataError, match="no NPZ file, no folder and no set"):
        load_set("nowhere", tmp_path)
    with pytest.raises(DataError, match="holds no CSV file"):
        load_set(tmp_path)
    path = write_set(tmp_path, "toys", [planted()])
    path.with_suffix(".json").write_text("{}")
    with pytest.raises(DataError, match="no list of objects"):
        load_set(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(DataError, match="labels cannot be read"):
        load_set(path)
    path.with_suffix(".json").write_text("[]")
    path.write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match="cannot be read as NPZ"):
        load_set(path)


def test_without_a_history_the_first_fifth_is_taken(tmp_path):
    loaded = load_set(write_set(tmp_path, "toys", [planted()], train_end=0))
    assert loaded.series[0].train_end == 240


def test_a_recording_of_its_own_is_tested_after_the_sets_normal_one(tmp_path):
    path = write_set(tmp_path, "toys", [planted("bad"), planted("normal", seed=1)])
    entries = json.loads(path.with_suffix(".json").read_text())
    entries[0] |= {"regions": [[600, 1200]], "contiguous": False}
    entries[1] |= {"regions": [], "contiguous": False}
    path.with_suffix(".json").write_text(json.dumps(entries))
    bad, normal = load_set(path).series
    assert normal.values.shape == (1200, 1)
    own, quiet = planted("bad").values, planted("normal", seed=1).values[500:]
    assert np.array_equal(bad.values, np.concatenate([own[:500], quiet, own[500:]]))
    assert bad.train_end == 500 and not bad.contiguous
    assert np.flatnonzero(bad.labels).tolist() == list(range(1300, 1900))
    gap = np.diff(bad.index)
    assert np.flatnonzero(gap > 1).tolist() == [1199]


def test_wholly_anomalous_recordings_follow_the_sets_normal_one(tmp_path):
    path = write_set(tmp_path, "toys", [planted("bad"), planted("normal")])
    entries = json.loads(path.with_suffix(".json").read_text())
    entries[0] |= {"train_end": 0, "regions": [[0, 1200]]}
    entries[1] |= {"regions": [], "train_end": 1200}
    path.with_suffix(".json").write_text(json.dumps(entries))
    loaded = load_set(path)
    (series,) = loaded.series
    assert list(loaded.left_out) == ["normal"]
    assert series.train_end == 600
    assert series.labels.tolist() == [0] * 1200 + [1] * 1200
    assert series.index[1200] - series.index[1199] > 1_000_000


def test_the_reported_half_is_never_run_unasked(tmp_path):
    series = [planted("a", half="tune"), planted("b", half="report"), planted("c", half="tune")]
    loaded = load_set(write_set(tmp_path, "toys", series))
    assert [one.name for one in loaded.choose().series] == ["a", "c"]
    assert [one.name for one in loaded.choose(half="report").series] == ["b"]
    named = loaded.choose(["a", "b", "x"])
    assert [one.name for one in named.series] == ["a"]
    assert "--half report" in named.left_out["b"]
    assert "no such series" in named.left_out["x"]
    with pytest.raises(ConfigError, match="nothing of toys is left"):
        loaded.choose(["x"])
    with pytest.raises(ConfigError, match="no half of toys"):
        loaded.choose(half="third")


def test_a_folder_of_labelled_csv_files_is_a_set(tmp_path):
    wave = np.sin(np.arange(400) / 5)
    for name, label in (("good", "label"), ("bare", "other")):
        rows = [f"{60 * k},{wave[k]},{int(300 <= k < 310)}" for k in range(400)]
        (tmp_path / f"{name}.csv").write_text("\n".join([f"time,flow,{label}", *rows]))
    (tmp_path / "broken.csv").write_text("")
    loaded = load_set(tmp_path)
    (series,) = loaded.series
    assert series.name == "good"
    assert series.step_ns == 60 * 10**9
    assert series.has_rate
    assert series.train_end == 80
    assert np.flatnonzero(series.labels).tolist() == list(range(300, 310))
    assert "no column of labels" in loaded.left_out["bare"]
    assert "is empty" in loaded.left_out["broken"]


def write_csv(path, rows, header="time,flow,label"):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]))


def test_an_anomaly_without_values_is_still_to_be_found(tmp_path):
    rows = [(60 * k, "" if 300 <= k < 310 else k % 7, int(300 <= k < 310)) for k in range(400)]
    write_csv(tmp_path / "a.csv", rows)
    (series,) = load_set(tmp_path).series
    assert np.flatnonzero(series.labels).tolist() == list(range(300, 310))
    assert np.isnan(series.values[300:310]).all()


def test_the_grid_is_that_of_the_history_whatever_comes_later(tmp_path):
    early = [(10 * k, k % 7, 0) for k in range(300)]
    late = [(3000 + 60 * k, k % 7, int(k == 500)) for k in range(1000)]
    write_csv(tmp_path / "a.csv", early + late)
    (series,) = load_set(tmp_path).series
    assert series.step_ns == 10 * 10**9


def test_a_second_column_of_labels_never_becomes_a_channel(tmp_path):
    rows = [(60 * k, k % 7, int(k == 300), int(k == 300)) for k in range(400)]
    write_csv(tmp_path / "a.csv", rows, "time,flow,is_anomaly,label")
    write_csv(tmp_path / "b.csv", [row[:3] for row in rows])
    loaded = load_set(tmp_path)
    assert [series.name for series in loaded.series] == ["b"]
    assert "'label' is called like labels, as 'is_anomaly' is" in loaded.left_out["a"]


def test_too_few_rows_cost_their_series_alone(tmp_path):
    write_csv(tmp_path / "a.csv", [(60 * k, k % 7, int(k == 3)) for k in range(4)])
    write_csv(tmp_path / "b.csv", [(60 * k, k % 7, int(k == 300)) for k in range(400)])
    loaded = load_set(tmp_path)
    assert [series.name for series in loaded.series] == ["b"]
    assert "has no history" in loaded.left_out["a"]


def test_labels_of_rows_that_share_a_cell_and_gaps_reach_the_grid(tmp_path):
    times = [0, 10, 20, 30, 31, 40, 70, 80, 90, 100]
    rows = [f"{t},{t % 7},{int(t == 31)}" for t in times]
    (tmp_path / "a.csv").write_text("\n".join(["time,v,label", *rows]))
    (series,) = load_set(tmp_path).series
    assert np.diff(series.index).tolist() == [1, 1, 1, 1, 3, 1, 1, 1]
    assert series.labels.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0]
