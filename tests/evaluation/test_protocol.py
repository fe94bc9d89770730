import dataclasses
import time

import numpy as np
import pytest
from oracles.toy_candidate import DELAY, Broken, Distance, planted

from edge_tsad.evaluation import protocol
from edge_tsad.evaluation.figures import measure
from edge_tsad.evaluation.peers import PEERS
from edge_tsad.evaluation.protocol import history_of, kept_rows, run_candidate, warmup_points


def figures(candidate, series, seed=0):
    record = measure(candidate, series, seed)
    timed = ("fit_s", "points_per_s", "series", "recording", "half", "train_s", "export_s")
    return {key: value for key, value in record.items() if key not in timed}


def cut(series, end):
    """The series as if the world had ended before row ``end``."""
    return dataclasses.replace(
        series, index=series.index[:end], values=series.values[:end], labels=series.labels[:end]
    )


def test_a_candidate_sees_the_history_without_names_labels_or_length():
    candidate = Distance()
    series = planted("012_UCR_Anomaly_500_800_830", units=("bar",))
    measure(candidate, series, 0)
    (history,) = candidate.seen
    assert len(history) == 500
    assert history.labels is None
    assert history.name == "history"
    assert [(channel.name, channel.unit) for channel in history.channels] == [("c0", "bar")]
    assert not np.shares_memory(history.values, series.values)


@pytest.mark.parametrize("candidate", [Distance(), *PEERS.values()], ids=lambda c: c.name)
def test_changing_or_cutting_the_future_never_changes_an_emitted_score(candidate):
    if candidate.name != "distance":
        pytest.importorskip("stumpy")
        pytest.importorskip("aeon")
    series, now = planted(n=900, begin=700), 650
    score = run_candidate(candidate, series, 0).score
    changed = dataclasses.replace(series, values=series.values.copy())
    changed.values[now:] = changed.values[now:][::-1] * 2
    known = slice(0, now - series.train_end - _delay(candidate, series))
    others = [run_candidate(candidate, one, 0).score for one in (cut(series, now), changed)]
    same = [np.allclose(other[known], score[known], rtol=0, atol=1e-5) for other in others]
    assert np.isfinite(score[known]).all()
    # A method that sees the future is told apart by this very test.
    assert all(same) != candidate.sees_future


def _delay(candidate, series):
    return candidate.fit(history_of(series), 0).delay


def test_how_the_stream_is_cut_never_changes_a_score(monkeypatch):
    series = planted()
    score = run_candidate(Distance(), series, 0).score
    monkeypatch.setattr(protocol, "CHUNK", 13)
    np.testing.assert_array_equal(run_candidate(Distance(), series, 0).score, score)


def test_shuffled_names_never_change_a_result():
    series = planted("one", half="tune", recording="r")
    renamed = dataclasses.replace(series, name="8_begin_800", half="report", recording="q")
    for candidate in (Distance(), PEERS["kmeans-ad"]):
        assert figures(candidate, series) == figures(candidate, renamed)


def test_the_stream_starts_with_the_last_points_of_a_connected_history_only():
    seen = []

    class Watching(Distance):
        def fit(self, history, seed):
            fitted = super().fit(history, seed)

            class Watch:
                def __init__(self):
                    self.inner = fitted.stream()

                def extend(self, index, values):
                    seen.append(index)
                    return self.inner.extend(index, values)

            return dataclasses.replace(fitted, stream=Watch)

    series = planted()
    score = run_candidate(Watching(), series, 0).score
    assert seen[0][0] == 500 - 16
    assert np.isfinite(score[:-DELAY]).all()
    assert np.isnan(score[-DELAY:]).all()
    seen.clear()
    run_candidate(Watching(), dataclasses.replace(series, contiguous=False), 0)
    assert seen[0][0] == 500


def test_warmup_is_left_out_for_everyone_where_there_is_no_past():
    series = planted()
    warmup = warmup_points(history_of(series))
    assert 0 < warmup < 500
    assert kept_rows(series, warmup).all()
    apart = dataclasses.replace(series, contiguous=False)
    assert np.flatnonzero(~kept_rows(apart, warmup)).tolist() == list(range(warmup))
    jump = dataclasses.replace(series, index=series.index + 10_000 * (series.index >= 900))
    left_out = np.flatnonzero(~kept_rows(jump, warmup))
    assert left_out.tolist() == list(range(400, 400 + warmup))
    assert measure(Distance(), apart, 0)["points"] == 700 - warmup


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raises", "ValueError: no such luck"),
        ("nan", "no point was given a score"),
        ("infinite", "infinite"),
        ("early", "before it was shown"),
        ("twice", "twice or out of order"),
    ],
)
def test_what_goes_wrong_is_a_miss_that_counts_as_zero(how, reason):
    record = measure(Broken(how), planted(), 0)
    assert record["status"] == "miss"
    assert reason in record["reason"]
    assert record["acc1"] == record["vus_pr"] == record["best_f1"] == 0


def test_a_time_out_is_a_miss():
    start = time.monotonic()
    record = measure(Broken("hangs"), planted(), 0, timeout_s=0.2)
    assert record["status"] == "miss"
    assert "time-out after 0.2 s" in record["reason"]
    assert time.monotonic() - start < 5


def test_a_point_without_a_score_is_never_found():
    record = measure(Broken("gaps"), planted(), 0)
    assert record["status"] == "ok"
    assert not 800 <= record["peak"] < 830
