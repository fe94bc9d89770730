from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.naive_score import NaiveScores, naive_scores
from oracles.windows import ConstantBackend, NumpyBackend, window_score

from edge_tsad.errors import BackendError, DataError
from edge_tsad.runtime.scorer import StreamScorer
from edge_tsad.types import Cells, Scores, Timing


def timing(
    window: int = 8,
    hop: int = 3,
    delay: int = 4,
    smoothing: int = 3,
    period: int = 6,
) -> Timing:
    return Timing(10**9, window, hop, delay, smoothing, period)


@st.composite
def timings(draw: st.DrawFn) -> Timing:
    hop = draw(st.integers(1, 6))
    half = draw(st.integers(0, 6))
    reach = draw(st.integers(hop - 1, hop + 5))
    window = draw(st.integers(reach + 1, reach + 8))
    return timing(window, hop, reach + half, 2 * half + 1, draw(st.integers(1, 30)))


@st.composite
def streams(draw: st.DrawFn, channels: int = 2) -> Cells:
    """Runs of cells with short and long gaps between them, channels dropping out."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    runs = draw(st.lists(st.tuples(st.integers(1, 25), st.integers(1, 18)), max_size=5))
    first = draw(st.integers(-20, 10**9))
    steps = [step for length, gap in runs for step in [gap + 1] + [1] * (length - 1)]
    return dirty(first + np.cumsum(np.array(steps, np.int64)), rng, channels)


def dirty(index: np.ndarray, rng: np.random.Generator, channels: int = 2) -> Cells:
    values = rng.normal(size=(len(index), channels)).astype(np.float32)
    observed = (rng.random(values.shape) < rng.choice([0.4, 0.8, 1.0])).astype(np.float32)
    values[observed == 0] = rng.choice([0.0, 99.0])
    return Cells(index, values, observed)


def cut(cells: Cells, *bounds: int) -> list[Cells]:
    edges = [0, *sorted(bounds), len(cells)]
    return [
        Cells(cells.index[a:b], cells.values[a:b], cells.observed[a:b])
        for a, b in itertools.pairwise(edges)
    ]


def run(timing: Timing, parts: list[Cells], max_batch: int = 1, **options: bool) -> Scores:
    scorer = StreamScorer(timing, parts[0].values.shape[1], NumpyBackend(max_batch, **options))
    return Scores.join([scorer.extend(part) for part in parts])


def oracle(timing: Timing, cells: Cells) -> NaiveScores:
    return naive_scores(
        cells.index,
        cells.values,
        cells.observed,
        window_score,
        window=timing.window,
        hop=timing.hop,
        delay=timing.delay,
        smoothing=timing.smoothing,
        period=timing.period,
    )


def assert_same(left: Scores, right: Scores) -> None:
    """The same bits."""
    for name in ("index", "score", "channel_score", "expected", "values", "observed"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), name)


@settings(deadline=None)
@given(timings(), streams(), st.integers(1, 4))
def test_scores_are_those_of_the_definition(timing, cells, max_batch):
    scores, wanted = run(timing, [cells], max_batch), oracle(timing, cells)
    np.testing.assert_array_equal(scores.index, wanted.index)
    for name in ("score", "channel_score", "expected"):
        found = getattr(scores, name)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, getattr(wanted, name), rtol=2e-6, err_msg=name)
    np.testing.assert_array_equal(scores.values, wanted.values)
    np.testing.assert_array_equal(scores.observed, wanted.observed)


def test_the_oracle_itself_on_a_case_worked_by_hand():
    # T=3, H=2, D=2, S=1 from index 0: windows end at 3 and 5; m(2) has the end 3 alone, m(3) both.
    ends: list[int] = []

    def last_value(window: np.ndarray, observed: np.ndarray) -> dict[str, np.ndarray]:
        ends.append(int(window[-1, 0]))
        score = np.full(3, window[-1, 0])
        return {"score": score, "channel_score": score[:, None]}

    index = np.arange(6)
    scores = naive_scores(
        index,
        index[:, None].astype(np.float32),
        np.ones((6, 1), np.float32),
        last_value,
        window=3,
        hop=2,
        delay=2,
        smoothing=1,
        period=1,
    )
    assert ends == [3, 5]
    assert scores.index.tolist() == [2, 3]
    assert scores.score.tolist() == [3.0, 4.0]
    assert scores.values[:, 0].tolist() == [2.0, 3.0]


@settings(deadline=None)
@given(timings(), streams(), st.lists(st.integers(0, 100), max_size=6), st.integers(1, 4))
def test_any_chunking_gives_the_same_bits(timing, cells, bounds, max_batch):
    whole = run(timing, [cells])
    parts = cut(cells, *(min(bound, len(cells)) for bound in bounds))
    assert_same(run(timing, parts, max_batch), whole)


@settings(deadline=None)
@given(timings(), streams())
def test_point_by_point_gives_the_same_bits(timing, cells):
    assert_same(run(timing, cut(cells, *range(1, len(cells)))), run(timing, [cells], 3))


@settings(deadline=None)
@given(timings(), streams(), st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_the_future_beyond_the_delay_changes_nothing(timing, cells, at, seed):
    at = min(at, len(cells))
    past, future = cut(cells, at)
    known = run(timing, [past])
    if len(known):
        assert known.index[-1] <= past.index[-1] - timing.delay
    other = dirty(future.index, np.random.default_rng(seed))
    for rest in (future, other):
        told = run(timing, [Cells.join([past, rest])])
        assert_same(
            known,
            Scores(
                *(
                    None if (value := getattr(told, name)) is None else value[: len(known)]
                    for name in Scores.__dataclass_fields__
                )
            ),
        )


def test_a_score_does_use_the_points_up_to_the_delay():
    # The counterpart of the test above: it would pass on a constant.
    index = np.arange(40)
    values = np.random.default_rng(0).normal(size=(40, 1)).astype(np.float32)
    ones = np.ones_like(values)
    before = run(timing(), [Cells(index, values, ones)])
    changed = values.copy()
    changed[29] += 5  # a window ends here: (29 + 1) mod 3 = 0
    after = run(timing(), [Cells(index, changed, ones)])
    assert before.index[before.score != after.score][0] == 29 - timing().delay


@settings(deadline=None)
@given(timings(), streams(), st.integers(0, 60), st.integers(1, 3))
def test_a_snapshot_continues_as_if_nothing_had_happened(timing, cells, at, max_batch):
    past, future = cut(cells, min(at, len(cells)))
    scorer = StreamScorer(timing, 2, NumpyBackend(max_batch))
    scorer.extend(past)
    file = io.BytesIO()
    np.savez(file, **scorer.snapshot())
    file.seek(0)
    resumed = StreamScorer(timing, 2, NumpyBackend())
    resumed.extend(Cells(np.arange(30), np.ones((30, 2), np.float32), np.ones((30, 2), np.float32)))
    with np.load(file, allow_pickle=False) as state:
        resumed.restore(dict(state))
    assert resumed.warmup_remaining == scorer.warmup_remaining
    assert_same(resumed.extend(future), scorer.extend(future))


def test_a_snapshot_of_another_stream_is_refused():
    state = StreamScorer(timing(), 2, NumpyBackend()).snapshot()
    for other, channels in ((timing(hop=2), 2), (timing(), 1)):
        with pytest.raises(DataError, match="another timing or number of channels"):
            StreamScorer(other, channels, NumpyBackend()).restore(state)


def test_phase_is_that_of_the_epoch_wherever_the_stream_begins():
    timing_ = timing(window=8, hop=5, delay=4, smoothing=1)
    values = np.random.default_rng(1).normal(size=(100, 2)).astype(np.float32)
    cells = Cells(np.arange(1000, 1100), values, np.ones_like(values))
    whole = run(timing_, [cells])
    for start in range(1, 12):
        late = run(timing_, cut(cells, start)[1:])
        assert late.index[0] == 1000 + start + 7
        np.testing.assert_array_equal(late.score, whole.score[start:])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("max_batch", [1, 8])
def test_windows_are_batched_within_a_chunk(channels, max_batch):
    backend = NumpyBackend(max_batch)
    scorer = StreamScorer(timing(hop=2), channels, backend)
    values = np.ones((200, channels), np.float32)
    scorer.extend(Cells(np.arange(200), values, values))
    assert sum(backend.batches) == len([e for e in range(7, 200) if (e + 1) % 2 == 0])
    assert max(backend.batches) == max_batch


def test_warmup_counts_down_to_the_first_score():
    scorer = StreamScorer(timing(), 1, NumpyBackend())
    one = np.ones((1, 1), np.float32)
    assert scorer.warmup_remaining == 8 + 4
    for k in range(12):
        scores = scorer.extend(Cells(np.array([500 + k]), one, one))
        assert scorer.warmup_remaining == 11 - k
        assert len(scores) == (k == 11)
    assert scores.index.tolist() == [507]
    scorer.extend(Cells(np.array([512 + 8]), one, one))
    assert scorer.warmup_remaining == 11


@pytest.mark.parametrize(("missing", "restarts"), [(7, False), (8, True)])
def test_a_gap_of_a_window_restarts_and_a_shorter_one_is_filled(missing, restarts):
    index = np.concatenate([np.arange(30), 30 + missing + np.arange(30)])
    ones = np.ones((60, 1), np.float32)
    scores = run(timing(), [Cells(index, ones, ones)])
    gap = set(range(26, 30 + missing + 7)) - set(scores.index.tolist())
    assert bool(gap) == restarts
    inside = scores.index == 32
    assert inside.any() != restarts
    if not restarts:
        assert scores.observed[inside].item() == 0
        assert scores.values[inside].item() == 1


def test_scores_are_withheld_where_less_than_half_of_the_period_was_observed():
    observed = np.ones((60, 2), np.float32)
    observed[30:36, 0] = 0  # one channel of two: exactly half of the cells remain
    observed[40:46, 0] = 0
    observed[43, 1] = 0  # and here one fewer
    values = np.ones((60, 2), np.float32)
    scores = run(timing(period=6), [Cells(np.arange(60), values, observed)])
    withheld = scores.index[np.isnan(scores.score)]
    assert withheld.tolist() == [45 - 4]
    assert np.isfinite(scores.channel_score).all()


def test_points_before_the_segment_count_as_not_observed():
    ones = np.ones((60, 1), np.float32)
    scores = run(timing(period=40), [Cells(np.arange(60), ones, ones)])
    assert scores.index[np.isnan(scores.score)].tolist() == list(range(7, 19 - 4))


def test_a_value_that_is_no_number_is_a_missing_one():
    values = np.ones((40, 1), np.float32)
    values[[10, 20], 0] = np.nan, np.inf
    ones = np.ones_like(values)
    scores = run(timing(), [Cells(np.arange(40), values, ones)])
    assert np.isfinite(scores.score).all()
    assert scores.index[scores.observed[:, 0] == 0].tolist() == [10, 20]


def test_a_model_that_answers_nan_is_withheld_where_it_did_and_nowhere_else():
    class Sick(ConstantBackend):
        def score(self, windows: np.ndarray, observed: np.ndarray) -> dict[str, np.ndarray]:
            sick = np.where(windows == 50, np.float32(np.nan), windows)
            return {"score": sick[:, :, 0], "channel_score": sick}

    values = np.arange(100, dtype=np.float32)[:, None]
    scorer = StreamScorer(timing(smoothing=5), 1, Sick())
    scores = scorer.extend(Cells(np.arange(100), values, np.ones_like(values)))
    assert scores.index[np.isnan(scores.score)].tolist() == [48, 49, 50, 51, 52]


def test_outputs_without_expected_have_none():
    ones = np.ones((40, 1), np.float32)
    cells = Cells(np.arange(40), ones, ones)
    parts = cut(cells, 3, 20)
    assert run(timing(), parts, has_expected=False).expected is None
    with_expected = run(timing(), parts)
    assert with_expected.expected is not None
    assert len(with_expected.expected) == len(with_expected)


@pytest.mark.parametrize("broken", ["score", "channel_score", "expected"])
def test_outputs_of_another_shape_are_refused(broken):
    class Broken(NumpyBackend):
        def score(self, windows: np.ndarray, observed: np.ndarray) -> dict[str, np.ndarray]:
            outputs = super().score(windows, observed)
            outputs[broken] = outputs[broken][:, 1:]
            return outputs

    ones = np.ones((40, 2), np.float32)
    with pytest.raises(BackendError, match=f"numpy: output {broken} is of shape"):
        StreamScorer(timing(), 2, Broken()).extend(Cells(np.arange(40), ones, ones))


def test_cells_that_do_not_fit_are_refused():
    scorer = StreamScorer(timing(), 2, NumpyBackend())
    one, two = np.ones((2, 1), np.float32), np.ones((2, 2), np.float32)
    with pytest.raises(DataError, match="2 channel"):
        scorer.extend(Cells(np.arange(2), one, one))
    with pytest.raises(DataError, match="index 5 does not come after"):
        scorer.extend(Cells(np.array([5, 5]), two, two))
    scorer.extend(Cells(np.array([5, 6]), two, two))
    with pytest.raises(DataError, match="index 6 does not come after"):
        scorer.extend(Cells(np.array([6, 7]), two, two))


def test_no_cells_are_no_scores():
    scores = StreamScorer(timing(), 3, NumpyBackend()).extend(Cells.empty(3))
    assert len(scores) == 0
    assert scores.channel_score.shape == scores.values.shape == (0, 3)


def test_a_long_stream_does_not_drift():
    """After 4·10⁶ points, the first of them huge, a score has the bits of a fresh stream's."""
    timing_ = timing(window=512, hop=256, delay=300, smoothing=65, period=300)
    points, chunk = 4_000_000, 100_000
    old = StreamScorer(timing_, 1, ConstantBackend(16))
    fresh = StreamScorer(timing_, 1, ConstantBackend())
    rng = np.random.default_rng(0)
    for start in range(0, points, chunk):
        values = rng.random((chunk, 1)).astype(np.float32) * (1e30 if start == 0 else 1)
        cells = Cells(np.arange(start, start + chunk), values, np.ones_like(values))
        aged = old.extend(cells)
    young = fresh.extend(cells)
    aged_tail, young_tail = aged.score[-50_000:], young.score[-50_000:]
    np.testing.assert_array_equal(aged_tail, young_tail)
    exact = np.convolve(values[:, 0].astype(np.float64), np.ones(65) / 65, "valid")
    at = aged.index[-50_000:] - start - 32
    np.testing.assert_allclose(aged_tail, exact[at], rtol=1e-7)


@settings(deadline=None)
@given(st.integers(1, 3))
def test_a_gap_longer_than_a_piece_is_filled_in_bounded_memory(max_batch):
    timing_ = timing(window=5000, hop=1000, delay=999, smoothing=1, period=10)
    index = np.concatenate([np.arange(6000), 6000 + 4999 + np.arange(10)])
    values = np.ones((len(index), 1), np.float32)
    scorer = StreamScorer(timing_, 1, ConstantBackend(max_batch))
    scores = scorer.extend(Cells(index, values, values))
    assert scores.index.tolist() == list(range(4999, 6000 + 4999 + 10 - 999))
    assert scorer._ring.capacity < 5000 + 4096


class DetailedBackend(NumpyBackend):
    """Two details besides: ``b`` the value of the window's last point, ``a`` its negative."""

    def score(self, windows: np.ndarray, observed: np.ndarray) -> dict[str, np.ndarray]:
        last = np.repeat(windows[:, -1:, 0], windows.shape[1], axis=1)
        return super().score(windows, observed) | {"b": last, "a": -last}


@settings(deadline=None)
@given(timings(), st.integers(0, 80), st.integers(1, 4))
def test_details_are_those_of_the_newest_window_however_the_stream_is_cut(timing, at, max_batch):
    values = np.arange(80, dtype=np.float32)[:, None] + 1000
    cells = Cells(np.arange(1000, 1080), values, np.ones_like(values))
    scorer = StreamScorer(timing, 1, DetailedBackend(max_batch))
    past, future = cut(cells, at)
    first = scorer.extend(past)
    again = StreamScorer(timing, 1, DetailedBackend(max_batch))
    again.restore(scorer.snapshot())
    scores = Scores.join([first, again.extend(future)])
    ends = (scores.index + timing.reach + 1) // timing.hop * timing.hop - 1
    assert len(scores) and scores.details is not None and scores.details.dtype == np.float32
    np.testing.assert_array_equal(scores.details, np.stack([-ends, ends], axis=1))


def test_a_new_segment_forgets_the_details_of_the_one_before():
    values = np.concatenate([np.full(40, 5), np.full(40, 7)]).astype(np.float32)[:, None]
    index = np.concatenate([np.arange(40), np.arange(500, 540)])
    scores = StreamScorer(timing(), 1, DetailedBackend()).extend(
        Cells(index, values, np.ones_like(values))
    )
    assert scores.details is not None
    np.testing.assert_array_equal(scores.details[:, 1], np.where(scores.index < 100, 5, 7))


def test_a_detail_of_another_shape_is_refused():
    class Broken(DetailedBackend):
        def score(self, windows: np.ndarray, observed: np.ndarray) -> dict[str, np.ndarray]:
            return super().score(windows, observed) | {"a": windows[:, 1:, 0]}

    ones = np.ones((40, 1), np.float32)
    with pytest.raises(BackendError, match="a detail is of shape"):
        StreamScorer(timing(), 1, Broken()).extend(Cells(np.arange(40), ones, ones))
