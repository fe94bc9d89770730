import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.naive_vus import vus_pr as naive_vus_pr

from edge_tsad.errors import DataError
from edge_tsad.evaluation.metrics import (
    auc_pr,
    best_f1,
    evaluation_window,
    is_hit,
    regions_of,
    top_peaks,
    vus_pr,
)

# Points, regions, kind of score, window; then VUS-PR and average precision as computed by the
# evaluation code of TSB-AD 1.5 (version 'opt', 250 thresholds) and scikit-learn.
GOLDEN = [
    (600, [(200, 240)], "noise", 30, 0.08176733517231428, 0.06629264010157854),
    (600, [(200, 240)], "late", 30, 0.7722638681217917, 0.6190302384231037),
    (
        600,
        [(200, 240), (260, 280), (500, 501)],
        "late",
        50,
        0.7731577607662089,
        0.47848741380106935,
    ),
    (600, [(0, 20), (580, 600)], "good", 40, 0.9996990547839073, 1.0),
    (300, [(100, 140), (141, 160)], "coarse", 20, 0.2570732077902476, 0.21634332046680957),
    (120, [(60, 61)], "late", 25, 0.07477904011309801, 0.01),
    (400, [(30, 90)], "flat", 10, 0.1593528661957058, 0.15),
    (900, [(100, 180), (400, 480)], "noise", 0, 0.17092200082360756, 0.17111201598420733),
]


def pair(n, regions, kind):
    k, labels = np.arange(n), np.zeros(n, int)
    for begin, end in regions:
        labels[begin:end] = 1
    wave = np.modf(np.abs(np.sin(k * 12.9898) * 43758.5453))[0]
    scores = {
        "noise": wave,
        "good": wave + labels,
        "late": wave + np.roll(labels, 12),
        "coarse": np.floor(wave * 5) / 5,
        "flat": np.ones(n),
    }
    return labels, scores[kind]


@pytest.mark.parametrize("golden", GOLDEN)
def test_figures_are_those_of_the_reference_code(golden):
    n, regions, kind, window, vus, precision = golden
    labels, scores = pair(n, regions, kind)
    assert vus_pr(labels, scores, window) == pytest.approx(vus, abs=1e-9)
    assert auc_pr(labels, scores) == pytest.approx(precision, abs=1e-9)
    assert regions_of(labels).tolist() == [list(region) for region in regions]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=3, max_size=60),
    st.integers(0, 12),
    st.integers(2, 40),
)
def test_vus_pr_equals_a_naive_oracle(points, window, thresholds):
    labels = [int(label) for label, _ in points]
    scores = [float(score) for _, score in points]
    if 0 < sum(labels) < len(labels):
        expected = naive_vus_pr(labels, scores, window, thresholds)
        assert vus_pr(labels, scores, window, thresholds) == pytest.approx(expected, abs=1e-9)


def test_a_perfect_score_is_worth_one_and_only_ranks_count():
    labels, scores = pair(600, [(200, 240)], "late")
    assert vus_pr(labels, np.exp(scores), 30) == vus_pr(labels, scores, 30)
    assert auc_pr(labels, labels) == best_f1(labels, labels) == 1


def test_best_f1_equals_a_search_over_all_thresholds():
    labels, scores = pair(300, [(100, 140)], "late")
    found = []
    for level in scores:
        alarmed = scores >= level
        hits = np.sum(alarmed & (labels > 0))
        found.append(2 * hits / (alarmed.sum() + labels.sum()))
    assert best_f1(labels, scores) == pytest.approx(max(found))


@pytest.mark.parametrize(
    ("labels", "scores", "word"),
    [
        ([0, 1, 0], [1.0, 2.0], "do not fit"),
        ([0, 0, 0], [1.0, 2.0, 3.0], "nothing is anomalous"),
        ([1, 1, 1], [1.0, 2.0, 3.0], "everything is anomalous"),
        ([0, 1, 0], [1.0, np.nan, 3.0], "not finite"),
    ],
)
def test_what_cannot_be_measured_is_refused(labels, scores, word):
    for metric in (auc_pr, best_f1, lambda a, b: vus_pr(a, b, 3)):
        with pytest.raises(DataError, match=word):
            metric(labels, scores)


# As find_length_rank of TSB-AD 1.5 gives them for 3000 points.
@pytest.mark.parametrize(
    ("series", "window"),
    [
        (lambda k: np.sin(2 * np.pi * k / 57), 57),
        (lambda k: np.sin(2 * np.pi * k / 40) + 0.5 * np.sin(2 * np.pi * k / 200), 200),
        (lambda k: k * 1.0, 125),
        (lambda k: np.sin(2 * np.pi * k / 390), 125),
        (lambda k: np.sin(2 * np.pi * k / 4) + 0.01 * np.sin(k * k), 125),
        (np.ones_like, 125),
    ],
)
def test_the_window_is_that_of_the_reference_code(series, window):
    assert evaluation_window(series(np.arange(3000))) == window


def test_the_window_of_a_short_series_is_found_within_it():
    assert evaluation_window(np.sin(2 * np.pi * np.arange(200) / 30)) == 30
    assert evaluation_window(np.arange(4.0)) == 125


def test_peaks_are_maxima_apart_from_one_another_and_ties_go_to_the_earliest():
    scores = np.zeros(100)
    scores[[10, 12, 40, 80]] = [5, 4, 5, 3]
    assert top_peaks(scores, 3, 20) == [10, 40, 80]
    # A slope beside a chosen peak is no peak of its own.
    ramp = np.concatenate([np.arange(50.0), np.arange(50.0, 0, -1)])
    assert top_peaks(ramp, 3, 10) == [50]
    assert top_peaks(np.ones(5), 3, 1) == [0]
    assert top_peaks(np.array([0, 2, 2, 1, 2.0]), 2, 1) == [1, 4]


def test_the_archive_allows_a_hundred_points_and_the_loose_rule_the_length():
    region = [[1000, 1400]]
    assert is_hit(900, region)
    assert is_hit(1499, region)
    assert not is_hit(899, region)
    assert not is_hit(1500, region)
    assert is_hit(600, region, loose=True)
    assert not is_hit(599, region, loose=True)
    assert not is_hit(5, np.empty((0, 2)))
