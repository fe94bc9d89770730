"""AlertPolicy and count_openings against the naive policy, and the rules one by one."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.naive_policy import NaivePolicy

from edge_tsad.errors import ConfigError, DataError
from edge_tsad.runtime.alerting import (
    AlertEvent,
    AlertPolicy,
    AlertState,
    count_openings,
    openings,
)
from edge_tsad.types import PolicySettings, Scores

NAN = math.nan
EVERY_POINT = 10**9


def make(score: object, index: object = None, channels: int = 2, expected: bool = True) -> Scores:
    values = np.asarray(score, np.float32)
    rng = np.random.default_rng(len(values))
    rows = [rng.random((len(values), channels)).astype(np.float32) for _ in range(3)]
    observed = (rng.random((len(values), channels)) > 0.3).astype(np.float32)
    where = np.arange(len(values)) if index is None else np.asarray(index)
    return Scores(
        where.astype(np.int64), values, rows[0], rows[1] if expected else None, rows[2], observed
    )


def cut(scores: Scores, begin: int, stop: int) -> Scores:
    parts = {
        field.name: None if (value := getattr(scores, field.name)) is None else value[begin:stop]
        for field in dataclasses.fields(scores)
    }
    return Scores(**parts)


def same(event: AlertEvent, naive: dict[str, object]) -> None:
    for name, value in naive.items():
        got = getattr(event, name)
        if value is None:
            assert got is None
        elif isinstance(value, str):
            assert got == value
        else:
            np.testing.assert_allclose(got, value, rtol=1e-6, err_msg=name)


SETTINGS = st.builds(
    PolicySettings,
    minimum_duration=st.integers(1, 4),
    hysteresis=st.sampled_from([0.3, 0.8, 1.0]),
    resolve_after=st.integers(1, 4),
    cooldown=st.integers(0, 6),
    update_every=st.integers(1, 5),
)
LEVELS = st.sampled_from([0.0, 1.0, 1.4, 1.75, 2.0, 2.5, NAN, math.inf])


@st.composite
def streams(draw: st.DrawFn) -> Scores:
    score = draw(st.lists(LEVELS, min_size=1, max_size=80))
    steps = st.sampled_from([1, 1, 1, 1, 1, 1, 2, 7])
    gaps = draw(st.lists(steps, min_size=len(score), max_size=len(score)))
    return make(score, np.cumsum(gaps) + 1000, expected=draw(st.booleans()))


@settings(max_examples=400, deadline=None)
@given(streams(), SETTINGS, st.data())
def test_policy_equals_the_naive_loop_in_any_chunks(
    scores: Scores, policy_settings: PolicySettings, data: st.DataObject
) -> None:
    fast, naive = AlertPolicy(2.0, 1.0, policy_settings), NaivePolicy(2.0, 1.0, policy_settings)
    begin = 0
    while begin < len(scores):
        stop = begin + data.draw(st.integers(1, len(scores) - begin))
        chunk, begin = cut(scores, begin, stop), stop
        events, wanted = fast.extend(chunk), naive.extend(chunk)
        assert [event.kind for event in events] == [event["kind"] for event in wanted]
        for event, naive_event in zip(events, wanted, strict=True):
            same(event, naive_event)
        assert fast.state == naive.name()
        action = data.draw(st.sampled_from(["none", "restart", "acknowledge", "retune"]))
        if action == "restart":
            revived = AlertPolicy(fast.threshold, 1.0, policy_settings)
            revived.restore({name: array.copy() for name, array in fast.snapshot().items()})
            fast = revived
        elif action == "acknowledge":
            event, naive_event = fast.acknowledge(), naive.acknowledge()
            assert (event is None) == (naive_event is None)
            if event is not None:
                same(event, naive_event)
        elif action == "retune":
            threshold = data.draw(st.sampled_from([0.5, 1.75, 2.0, 2.5]))
            fast.retune(threshold)
            naive.retune(threshold)


@settings(max_examples=200, deadline=None)
@given(streams(), SETTINGS, st.sampled_from([1.0, 1.75, 2.0, 2.5]))
def test_count_openings_is_the_policys_own_count(
    scores: Scores, policy_settings: PolicySettings, threshold: float
) -> None:
    score = make(scores.score)
    events = NaivePolicy(threshold, 1.0, policy_settings).extend(score)
    onsets = [event["onset"] for event in events if event["kind"] == "new"]
    assert openings(score.score, threshold, 1.0, policy_settings).tolist() == onsets
    assert count_openings(score.score, threshold, 1.0, policy_settings) == len(onsets)


def kinds(score: list[float], **options: float) -> list[tuple[str, int, int]]:
    policy = AlertPolicy(2.0, 0.0, PolicySettings(**{"update_every": EVERY_POINT, **options}))
    return [(event.kind, event.onset, event.index) for event in policy.extend(make(score))]


def test_hysteresis_keeps_an_alert_open_until_the_score_is_clearly_low() -> None:
    score = [0, 2, 1.7, 2, 1.5, 2]
    assert kinds(score, hysteresis=0.8) == [("new", 1, 1), ("end", 1, 4), ("new", 5, 5)]
    assert len(kinds(score, hysteresis=1.0)) == 5


def test_minimum_duration_reports_the_beginning_of_the_row() -> None:
    assert kinds([2, 0, 2, 2, 2, 2], minimum_duration=3) == [("new", 2, 4)]


def test_resolve_after_counts_quiet_points_in_a_row_and_skips_withheld_ones() -> None:
    assert kinds([2, 0, 2, 0, NAN, NAN, 0], resolve_after=2) == [("new", 0, 0), ("end", 0, 6)]


def test_no_alert_opens_in_the_cooldown() -> None:
    assert kinds([2, 0, 2, 2, 2], cooldown=2) == [("new", 0, 0), ("end", 0, 1), ("new", 4, 4)]


def test_lost_data_keeps_an_alert_firing_and_says_so() -> None:
    policy = AlertPolicy(2.0, 0.0, PolicySettings(update_every=2))
    events = policy.extend(make([2, NAN, NAN]))
    assert policy.state is AlertState.FIRING and policy.data_lost
    assert [event.data_lost for event in events] == [False, True]
    assert policy.extend(make([2], [10_000]))[0].kind == "update"
    assert not policy.data_lost and policy.onset == 0


def test_quiet_points_count_on_over_a_chunk_without_any_score() -> None:
    policy = AlertPolicy(2.0, 0.0, PolicySettings(resolve_after=2, update_every=EVERY_POINT))
    events = [policy.extend(make([value], [k])) for k, value in enumerate([2, 0, NAN, 0])]
    assert [len(chunk) for chunk in events] == [1, 0, 0, 1]


def test_lost_data_breaks_a_pending_row() -> None:
    assert kinds([2, NAN, 2], minimum_duration=2) == []
    policy = AlertPolicy(2.0, 0.0, PolicySettings(minimum_duration=2))
    assert policy.extend(make([2])) == [] and policy.state is AlertState.PENDING
    assert policy.extend(make([2], [5])) == []


def test_life_of_an_alert_and_its_acknowledgement() -> None:
    policy = AlertPolicy(2.0, 0.0, PolicySettings(cooldown=1))
    assert policy.state is AlertState.IDLE and policy.acknowledge() is None
    policy.extend(make([0, 3]))
    event = policy.acknowledge()
    assert event is not None and event.kind == "update" and event.acknowledged
    assert policy.state is AlertState.ACKNOWLEDGED and policy.acknowledge() is None
    (end,) = policy.extend(make([0], [2]))
    assert end.kind == "end" and end.acknowledged and policy.state is AlertState.RESOLVED
    policy.extend(make([0, 0], [3, 4]))
    assert policy.state is AlertState.IDLE
    (new, *_) = policy.extend(make([3], [5]))
    assert not new.acknowledged


def test_event_shows_the_rows_at_the_peak() -> None:
    scores = make([2, 5, 3])
    event = AlertPolicy(2.0, 0.0, PolicySettings()).extend(scores)[-1]
    assert (event.peak, event.peak_index) == (5.0, 1)
    assert scores.expected is not None and event.expected is not None
    np.testing.assert_array_equal(event.expected, scores.expected[1])
    np.testing.assert_allclose(event.channel_share.sum(), 1, rtol=1e-6)


def test_share_of_channels_without_any_part_is_zero() -> None:
    scores = make([3])
    scores.channel_score[:] = 0
    (event,) = AlertPolicy(2.0, 0.0, PolicySettings()).extend(scores)
    assert event.channel_share.tolist() == [0, 0]


def test_points_out_of_order_are_refused_and_change_nothing() -> None:
    policy = AlertPolicy(2.0, 0.0, PolicySettings())
    policy.extend(make([3], [7]))
    with pytest.raises(DataError, match="index 7 comes after index 7"):
        policy.extend(make([0], [7]))
    assert policy.state is AlertState.FIRING


@pytest.mark.parametrize("damage", ["numbers", "seen", "measures", "values"])
def test_restore_refuses_what_is_no_snapshot(damage: str) -> None:
    policy = AlertPolicy(2.0, 0.0, PolicySettings())
    policy.extend(make([3]))
    state = policy.snapshot()
    del state[damage]
    with pytest.raises(DataError, match="alert state"):
        AlertPolicy(2.0, 0.0, PolicySettings()).restore(state)


def test_threshold_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="not finite"):
        AlertPolicy(NAN, 0.0, PolicySettings())


@pytest.mark.parametrize("score", [[NAN, NAN], []])
def test_nothing_to_judge_opens_nothing(score: list[float]) -> None:
    assert count_openings(np.array(score, np.float32), 1.0, 0.0, PolicySettings()) == 0


def test_a_million_points_are_walked_in_jumps() -> None:
    score = np.zeros(10**6, np.float32)
    score[::100_000] = 3
    events = AlertPolicy(2.0, 1.0, PolicySettings()).extend(make(score, channels=1, expected=False))
    assert [event.index for event in events[::2]] == list(range(0, 10**6, 100_000))
