"""However the score behaves, few alerts are told, and none is forgotten."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_tsad.errors import ConfigError, DataError
from edge_tsad.runtime.alerting import AlertEvent
from edge_tsad.runtime.limits import AlertLimits, LimitSettings, StormEvent

LIMITS = LimitSettings(per_hour=6, flaps=3, flap_s=600)
ROW = np.ones(1, np.float32)


def event(kind: str, onset: int, index: int, peak: float = 5.0) -> AlertEvent:
    return AlertEvent(
        kind=kind, onset=onset, index=index, score=peak, peak=peak, peak_index=onset,
        channel_share=ROW, expected=None, values=ROW, observed=ROW, observed_fraction=1.0,
        threshold=2.0, acknowledged=False,
    )  # fmt: skip  # type: ignore[arg-type]


def life(begin: int, length: int, peak: float = 5.0) -> list[AlertEvent]:
    """An alert with one update in the middle."""
    middle = begin + length // 2
    kinds = [("new", begin), ("update", middle), ("end", begin + length)]
    return [event(kind, begin, index, peak) for kind, index in kinds]


# gaps before and lengths of alerts, in seconds; peaks
alerts = st.lists(
    st.tuples(st.integers(1, 3000), st.integers(2, 900), st.floats(2, 100)), max_size=60
)


def lives(shape: Iterable[tuple[int, int, float]]) -> list[AlertEvent]:
    found, index = [], 1_800_000_000
    for gap, length, peak in shape:
        index += gap
        found += life(index, length, peak)
        index += length
    return found


def told(limits: AlertLimits, events: list[AlertEvent]) -> list[AlertEvent | StormEvent]:
    """All events at once, and then a long calm."""
    last = events[-1].index if events else 0
    return [*limits.take(events), *limits.advance(last + 10_000)]


@settings(deadline=None)
@given(alerts)
def test_never_more_than_so_many_in_any_hour_or_flap(shape: list[tuple[int, int, float]]) -> None:
    found = told(AlertLimits(LIMITS, 1.0), lives(shape))
    opened = [e.index for e in found if isinstance(e, AlertEvent) and e.kind == "new"]
    for index in opened:
        assert sum(index - 3600 < each <= index for each in opened) <= LIMITS.per_hour
        assert sum(index - 600 < each <= index for each in opened) <= LIMITS.flaps
    summaries = [e.index for e in found if isinstance(e, StormEvent) and e.kind != "end"]
    assert all(b - a >= 600 for a, b in itertools.pairwise(summaries))


@settings(deadline=None)
@given(alerts)
def test_what_is_not_told_is_counted_and_nothing_is_told_by_halves(
    shape: list[tuple[int, int, float]],
) -> None:
    limits = AlertLimits(LIMITS, 1.0)
    events = lives(shape)
    found = told(limits, events)
    plain = [e for e in found if isinstance(e, AlertEvent)]
    kinds = [e.kind for e in plain]
    assert kinds == ["new", "update", "end"] * (len(plain) // 3)
    assert len(plain) // 3 + limits.withheld == len(events) // 3
    storms = [e for e in found if isinstance(e, StormEvent)]
    assert sum(e.withheld for e in storms if e.kind == "end") == limits.withheld
    for before, after in zip([None, *storms], storms, strict=False):
        began = before is None or before.kind == "end"
        assert (after.kind == "new") == began
        assert began or after.withheld >= before.withheld  # type: ignore[union-attr]
    assert not storms or storms[-1].kind == "end"


@settings(deadline=None)
@given(alerts, st.sets(st.integers(0, 180)))
def test_a_restart_anywhere_changes_nothing(
    shape: list[tuple[int, int, float]], cuts: set[int]
) -> None:
    events = lives(shape)
    whole = told(AlertLimits(LIMITS, 1.0), events)
    limits = AlertLimits(LIMITS, 1.0)
    found: list[AlertEvent | StormEvent] = []
    for i, each in enumerate(events):
        if i in cuts:
            kept = json.loads(json.dumps(limits.snapshot()))
            limits = AlertLimits(LIMITS, 1.0)
            limits.restore(kept)
        found += [*limits.advance(each.index - 1), *limits.take([each])]
    found += limits.advance(10**12)
    assert found == whole


def test_flapping_is_one_summary_with_the_highest_peak() -> None:
    shape = [(20, 10, 3.0)] * 5 + [(20, 10, 9.0)] + [(20, 10, 4.0)] * 30
    found = told(AlertLimits(LIMITS, 1.0), lives(shape))
    assert [e.kind for e in found if isinstance(e, AlertEvent)] == ["new", "update", "end"] * 3
    storms = [e for e in found if isinstance(e, StormEvent)]
    assert [e.kind for e in storms] == ["new", "update", "end"]
    assert storms[-1].withheld == 33 and storms[-1].peak == 9.0


def test_rare_alerts_are_all_told() -> None:
    limits = AlertLimits(LIMITS, 1.0)
    events = lives([(700, 10, 3.0)] * 5)
    assert told(limits, events) == events and limits.withheld == 0


def test_a_clock_that_was_set_back_does_not_withhold() -> None:
    limits = AlertLimits(LIMITS, 1.0)
    list(limits.take(lives([(20, 10, 3.0)] * 9)))
    early = [replace(e, index=e.index - 10**9, onset=e.onset - 10**9) for e in lives([(1, 5, 3.0)])]
    summary, *rest = limits.take(early)
    assert summary.kind == "end" and rest == early and not limits.storm


def test_bad_settings_and_snapshots_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"alerts\.per_hour: 0 is not positive"):
        LimitSettings(per_hour=0)
    limits = AlertLimits(LIMITS, 1.0)
    with pytest.raises(DataError, match="are not a snapshot"):
        limits.restore({"openings": [1]})
