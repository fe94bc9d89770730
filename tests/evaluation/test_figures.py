import dataclasses

import numpy as np
import pytest
from oracles.toy_candidate import DELAY, Broken, Distance, planted

from edge_tsad.evaluation.figures import Trial, measure
from edge_tsad.evaluation.metrics import vus_pr
from edge_tsad.evaluation.protocol import history_of, run_candidate


def test_an_anomaly_in_plain_sight_is_found_with_all_figures():
    record = measure(Distance(), planted(), 0, board=True)
    assert record["status"] == "ok"
    assert record["acc1"] == record["acc3"] == record["acc5_loose"] == 1
    assert 800 - DELAY <= record["peak"] < 830
    assert record["vus_pr"] > 0.8
    assert record["vus_pr_floor"] < 0.2
    assert record["auc_pr"] > 0.7
    assert record["vus_window"] == 40
    assert record["parameters"] == 1
    assert record["delay"] == DELAY
    assert record["board_vus_pr"] > 0.7
    assert record["acc1_floor"] == pytest.approx(230 / 700)
    assert record["acc3_floor"] == pytest.approx(1 - (1 - 230 / 700) ** 3)


def test_protocols_score_the_test_part_and_the_whole_series():
    series = planted()
    scored = run_candidate(Distance(), series, 0, board=True)
    score = np.where(np.isnan(scored.score), np.nanmin(scored.score), scored.score)
    record = measure(Distance(), series, 0, board=True)
    assert record["vus_pr"] == vus_pr(series.labels[500:], score, 40)
    assert len(scored.whole_score) == 1200


def test_alarms_are_counted_at_the_shipped_threshold():
    series = planted()
    series.values[1100:1110] += 3  # looks like an anomaly but is none
    record = measure(Distance(), series, 0)
    assert record["openings_hit"] >= 1
    assert record["openings_false"] >= 1
    assert record["regions_found"] == record["regions"] == 1
    assert record["detection_delay"] == DELAY
    assert record["calibration"] == "CALIBRATED"
    assert record["promised_per_10k"] == 1
    expected = record["openings_false"] / record["points_normal"] * 10_000
    assert record["false_per_10k"] == pytest.approx(expected)
    assert record["inside"] == 0
    assert record["points_normal"] < 700 - 230


def test_without_an_interval_nothing_is_promised():
    candidate = Distance()
    fitted = candidate.fit(history_of(planted()), 0)
    alarm = dataclasses.replace(fitted.alarm, state="UNCALIBRATED", interval=None)
    candidate.fit = lambda history, seed: dataclasses.replace(fitted, alarm=alarm)
    record = measure(candidate, planted(), 0)
    assert record["calibration"] == "UNCALIBRATED"
    assert record["promised_per_10k"] is None
    assert "inside" not in record


def test_nothing_to_find_counts_for_alarms_only():
    series = planted()
    series.labels[:] = 0
    series.values[800:830] -= 3
    record = measure(Distance(), series, 0)
    assert record["status"] == "normal"
    assert "nothing in its test part is anomalous" in record["reason"]
    assert "acc1" not in record
    assert record["openings_false"] == 0
    assert record["inside_count"] == 1


def test_everything_anomalous_after_the_warmup_is_left_out():
    series = dataclasses.replace(planted(), contiguous=False)
    series.labels[560:] = 1
    record = measure(Distance(), series, 0)
    assert record["status"] == "left out"
    assert "everything in its test part is anomalous" in record["reason"]


def test_rows_near_a_region_are_those_within_the_margin():
    trial = Trial(planted())
    near = np.flatnonzero(trial.near(100))
    assert (near[0], near[-1]) == (200, 429)


def test_a_miss_found_none_of_what_there_was():
    record = measure(Broken("raises"), planted(), 0, board=True)
    assert (record["status"], record["regions"], record["regions_found"]) == ("miss", 1, 0)
    assert record["board_vus_pr"] == 0.0


def test_what_fails_on_the_whole_series_alone_costs_the_board_alone():
    candidate = Distance()
    streams = iter([candidate.fit(history_of(planted()), 0).stream(), Broken("early")])
    fitted = dataclasses.replace(
        candidate.fit(history_of(planted()), 0), stream=lambda: next(streams)
    )
    candidate.fit = lambda history, seed: fitted
    record = measure(candidate, planted(), 0, board=True)
    assert (record["status"], record["acc1"]) == ("ok", 1)
    assert record["board_vus_pr"] == 0.0
    assert "before it was shown" in record["board_reason"]


def test_an_anomaly_that_is_all_within_the_warm_up_is_not_looked_for():
    series = dataclasses.replace(planted(), contiguous=False)
    series.labels[510:520] = 1
    record = measure(Distance(), series, 0)
    assert record["warmup"] > 20
    assert record["regions"] == 1


def test_points_of_another_recording_are_near_nothing():
    series = planted(begin=801, length=300)
    far = dataclasses.replace(series, index=series.index + (series.index > 800) * (1 << 40))
    near = np.flatnonzero(Trial(far).near(100))
    assert (near[0], near[-1]) == (301, 700 - 1)
    series.values[790:795] += 9
    assert measure(Distance(), series, 0)["acc1"] == 1
    assert measure(Distance(), far, 0)["acc1"] == 0


def test_missing_values_in_history_and_test_are_no_obstacle():
    series = planted()
    series.values[50:60] = np.nan
    series.values[900:904] = np.nan
    record = measure(Distance(), series, 0)
    assert record["status"] == "ok"
    assert record["acc1"] == 1
