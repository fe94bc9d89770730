import dataclasses

import numpy as np
import pytest
from oracles.toy_candidate import planted

from edge_tsad.evaluation.benchmark import Benchmark, Settings
from edge_tsad.evaluation.candidates import Candidate
from edge_tsad.evaluation.figures import measure
from edge_tsad.evaluation.labelled import LabelledSet
from edge_tsad.evaluation.protocol import history_of, run_candidate
from edge_tsad.evaluation.shipped import ShippedDetector

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def series():
    return planted(n=2400, train_end=1500, begin=2000)


@pytest.fixture(scope="module")
def once(series):
    """The detector as it ships, fitted for a few steps and only once."""
    shipped = ShippedDetector("coad", {"steps": 5})
    fitted = shipped.fit(history_of(series), 0)

    class Once(Candidate):
        name = shipped.name

        def settings(self):
            return shipped.settings()

        def fit(self, history, seed):
            return fitted

    return Once()


def test_the_exported_file_is_scored_with_its_own_threshold(series, once):
    record = measure(once, series, 0)
    assert record["status"] == "ok", record["reason"]
    assert record["file_bytes"] > 10_000
    assert record["parameters"] > 1_000
    assert record["delay"] > 0
    assert record["calibration"] in {"CALIBRATED", "EXTRAPOLATED", "UNCALIBRATED"}
    assert record["false_per_10k"] >= 0
    promises = record["calibration"] != "UNCALIBRATED"
    assert (record["promised_per_10k"] is not None) == promises


def test_its_scores_depend_on_the_past_and_the_declared_delay_only(series, once):
    score = run_candidate(once, series, 0).score
    delay = once.fit(None, 0).delay
    now = 2100 - series.train_end
    changed = dataclasses.replace(series, values=series.values.copy())
    changed.values[2100:] = 50
    shorter = dataclasses.replace(
        series, index=series.index[:2100], values=series.values[:2100], labels=series.labels[:2100]
    )
    assert np.isfinite(score[: now - delay]).all()
    for other in (changed, shorter):
        again = run_candidate(once, other, 0).score
        np.testing.assert_array_equal(again[: now - delay], score[: now - delay])


def test_gaps_are_bridged_and_missing_rows_are_never_shown(series, once):
    torn = dataclasses.replace(series, values=series.values.copy())
    torn.values[1700:1720] = np.nan
    score = run_candidate(once, torn, 0).score
    assert np.isfinite(score[:150]).all()
    assert measure(once, torn, 0)["status"] == "ok"


def test_its_results_belong_to_one_state_of_the_code(series, tmp_path):
    chosen = LabelledSet("toys", (series,))
    candidates = [ShippedDetector("coad"), ShippedDetector("coad", {"encoder": "gru"})]
    tasks = Benchmark(chosen, candidates, Settings(), tmp_path).tasks
    assert len({task.key for task in tasks}) == 2
    assert len(str(candidates[0].settings()["code"])) == 16
    assert candidates[1].name == "coad[encoder=gru]"
