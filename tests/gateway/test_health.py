"""Each health condition: raised once, ended once, over restarts, and apart from the anomalies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge_tsad.errors import ConfigError, DataError
from edge_tsad.runtime import health as module
from edge_tsad.runtime.health import HealthEvent, HealthSettings, StreamHealth
from edge_tsad.types import Channel, Now, Scores, Timing

SECOND = 10**9
START = 1_800_000_000
DAY = 86_400
TIMING = Timing(SECOND, 8, 1, 2, 1, 4)
AB = (Channel("a"), Channel("b"))
NAN = float("nan")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are looked at every second, so that a test may tell one from the next."""
    monkeypatch.setattr(module, "LOOK_S", 1.0)


class Stream:
    """A stream's health, second by second."""

    def __init__(self, *, live: bool = True, timing: Timing = TIMING, **settings: Any) -> None:
        self.make = lambda: StreamHealth(HealthSettings(**settings), timing, AB, 2.0, 0.5)
        self.health = self.make()
        self.live = live
        self.second = 0
        self.events: list[HealthEvent] = []
        self.offset_s = START
        self.synchronised = True
        self.rng = np.random.default_rng(0)

    @property
    def now(self) -> Now:
        wall_ns = int((self.second + self.offset_s) * SECOND)
        return Now(self.second, wall_ns, "boot", self.synchronised)

    def pass_time(self, seconds: int, a: Any = None, b: Any = None) -> None:
        """Every second a reading of each; a number, "noise", or None for no reading."""
        step = 30 if a is b is None and seconds > 1000 else 1
        for _ in range(seconds // step):
            self.second += step
            row = [self.rng.normal() if v == "noise" else NAN if v is None else v for v in (a, b)]
            if not all(np.isnan(row)):
                times = np.array([self.now.wall_ns], np.int64)
                values = np.array([row], np.float32)
                self.events += self.health.take(times, values, self.now, live=self.live)
            self.events += self.health.advance(self.now, live=self.live)

    def said(self) -> list[tuple[str, str, tuple[int, ...]]]:
        said = [(event.kind, event.name, event.channels) for event in self.events]
        self.events.clear()
        return said


def test_a_day_of_silence_is_one_no_data() -> None:
    stream = Stream()
    stream.pass_time(600, "noise", "noise")
    assert stream.said() == []
    stream.pass_time(DAY)
    assert stream.said() == [("new", "NO_DATA", (0, 1))]
    stream.pass_time(100, "noise", "noise")
    assert stream.said() == [("end", "NO_DATA", (0, 1))]


def test_a_source_that_never_spoke_is_silent() -> None:
    stream = Stream()
    stream.pass_time(299)
    assert stream.said() == []
    stream.pass_time(5)
    assert stream.said() == [("new", "NO_DATA", (0, 1))]


def test_one_silent_channel_among_others_is_named() -> None:
    stream = Stream()
    stream.pass_time(100, "noise", "noise")
    stream.pass_time(300, "noise")
    assert stream.said() == [("new", "NO_DATA", (1,))]
    stream.pass_time(300)
    assert stream.said() == [("update", "NO_DATA", (0, 1))]
    stream.pass_time(120, "noise")
    assert stream.said() == [("update", "NO_DATA", (1,))]
    stream.pass_time(5, "noise", "noise")
    assert stream.said() == [("end", "NO_DATA", (1,))]


def test_a_slow_channel_is_not_called_silent() -> None:
    stream = Stream()
    for _ in range(20):
        stream.pass_time(240, "noise")
        stream.pass_time(1, "noise", "noise")
    assert stream.said() == []


def test_a_stated_limit_is_kept() -> None:
    stream = Stream(no_data_s=20)
    stream.pass_time(5, "noise", "noise")
    stream.pass_time(20)
    assert stream.said() == []
    stream.pass_time(2)
    assert stream.said() == [("new", "NO_DATA", (0, 1))]


def test_a_channel_that_varied_and_freezes_is_stuck_until_it_moves() -> None:
    stream = Stream()
    stream.pass_time(500, "noise", "noise")
    stream.pass_time(599, "noise", 1.25)
    assert stream.said() == []
    stream.pass_time(60, "noise", 1.25)
    assert stream.said() == [("new", "STUCK", (1,))]
    stream.pass_time(2000, "noise", 1.25)
    assert stream.said() == []
    stream.pass_time(3, "noise", "noise")
    assert stream.said() == [("end", "STUCK", (1,))]


def test_a_channel_that_never_varied_is_not_stuck() -> None:
    stream = Stream()
    stream.pass_time(5000, "noise", 0.0)
    assert stream.said() == []


def test_a_valve_that_seldom_switches_is_not_stuck() -> None:
    stream = Stream()
    for i in range(25):
        stream.pass_time(100, "noise", i % 2)
    stream.pass_time(850, "noise", 0)
    assert stream.said() == []
    stream.pass_time(100, "noise", 0)
    assert stream.said() == [("new", "STUCK", (1,))]


def test_a_gap_in_the_data_or_a_clock_from_1970_makes_nothing_stuck() -> None:
    stream = Stream(stuck_s=60, off=("NO_DATA", "CLOCK"))
    stream.offset_s = 0
    stream.pass_time(100, "noise", "noise")
    stream.pass_time(1, 5.0, 5.0)
    stream.pass_time(1000)
    stream.offset_s = START
    stream.pass_time(1, 5.0, 5.0)
    stream.pass_time(20, 5.0, 5.0)
    assert stream.said() == []
    stream.pass_time(60, 5.0, 5.0)
    assert stream.said() == [("new", "STUCK", (0, 1))]


def test_declared_bounds() -> None:
    stream = Stream(bounds={"a": (-10.0, 10.0)})
    stream.pass_time(50, "noise", 1e6)
    assert stream.said() == []
    stream.pass_time(1, -999.0, 1e6)
    assert stream.said() == [("new", "RANGE", (0,))]
    stream.pass_time(59, "noise", 1e6)
    assert stream.said() == []
    stream.pass_time(3, "noise", 1e6)
    assert stream.said() == [("end", "RANGE", (0,))]


def test_values_are_looked_at_every_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 5.0)
    stream = Stream(bounds={"a": (-10.0, 10.0)})
    stream.pass_time(7, "noise", 0.0)
    stream.pass_time(1, 99.0, 0.0)
    assert stream.said() == []
    stream.pass_time(5, "noise", 0.0)
    assert stream.said() == [("new", "RANGE", (0,))]


def test_learned_bounds_are_wide_and_need_a_week() -> None:
    hourly = Timing(3600 * SECOND, 8, 1, 2, 1, 4)
    health = StreamHealth(HealthSettings(), hourly, AB, 2.0, 0.5)
    rng = np.random.default_rng(0)
    events: list[HealthEvent] = []

    def hours(begin: int, values: np.ndarray) -> None:
        times = (np.arange(len(values), dtype=np.int64) + begin) * 3600 * SECOND
        now = Now(begin, 0)
        events.extend(health.take(times, values.astype(np.float32), now, live=False))
        events.extend(health.advance(now, live=False))

    hours(0, rng.uniform(0, 1, (100, 2)))
    hours(100, np.array([[50.0, 0.5]]))  # in the first week everything is new
    assert not events
    health.restore({**health.snapshot(), "range": np.array([[0.0, 0.0], [1.0, 1.0]])})
    hours(101, rng.uniform(0, 1, (100, 2)))
    hours(201, np.array([[3.9, 0.5]]))
    assert not events
    hours(202, np.array([[0.5, -65535.0]]))
    assert [(event.name, event.channels) for event in events] == [("RANGE", (1,))]


@pytest.mark.parametrize(
    ("offset_s", "synchronised", "after_s", "sentence"),
    [
        (0, True, 3, "never set"),
        (0, False, 3, "never set"),
        (START, False, 603, "not synchronised"),
    ],
)
def test_a_clock_that_cannot_be_believed(
    *, offset_s: int, synchronised: bool, after_s: int, sentence: str
) -> None:
    stream = Stream()
    stream.offset_s, stream.synchronised = offset_s, synchronised
    stream.pass_time(after_s, "noise", "noise")
    (event,) = stream.events
    assert (event.kind, event.name, event.channels) == ("new", "CLOCK", ())
    assert sentence in event.why
    stream.said()
    stream.offset_s, stream.synchronised = START, True
    stream.pass_time(700, "noise", "noise")
    assert stream.said() == [("end", "CLOCK", ())]


def test_a_jump_is_told_and_how_far_the_clock_was_set_back() -> None:
    stream = Stream()
    stream.pass_time(10, "noise", "noise")
    stream.offset_s -= 7200
    stream.pass_time(1, "noise", "noise")
    assert stream.health.clock.jumped_back_s == pytest.approx(7200)
    assert "the clock jumped by -7200.0 s" in stream.events[0].why
    stream.pass_time(1, "noise", "noise")
    assert stream.health.clock.jumped_back_s == 0
    assert stream.said() == [("new", "CLOCK", ())]
    stream.pass_time(700, "noise", "noise")
    assert stream.said() == [("end", "CLOCK", ())]


def test_slewing_another_boot_and_replays_are_no_jump() -> None:
    stream = Stream()
    for _ in range(300):
        stream.offset_s += 0.05
        stream.pass_time(1, "noise", "noise")
    replay = Stream(live=False)
    replay.offset_s, replay.synchronised = 0, False
    replay.pass_time(2000, "noise", "noise")
    assert stream.said() == replay.said() == []


def test_samples_of_a_live_source_stamped_by_a_foreign_clock() -> None:
    stream = Stream()
    stream.pass_time(5, "noise", "noise")
    times = np.array([stream.now.wall_ns - 3600 * SECOND], np.int64)
    stream.health.take(times, np.ones((1, 2), np.float32), stream.now, live=True)
    stream.pass_time(1)
    assert "stamped -3601 s off" in stream.events[0].why


def scores(begin: int, values: np.ndarray) -> Scores:
    index = np.arange(begin, begin + len(values), dtype=np.int64)
    rows = np.zeros((len(values), 2), np.float32)
    return Scores(index, values.astype(np.float32), rows, None, rows, rows)


@pytest.mark.parametrize("chunk", [1, 7, 500])
def test_a_lasting_rise_of_the_scores_is_drift_and_a_passing_one_is_not(chunk: int) -> None:
    stream = Stream(drift_s=2400)
    rng = np.random.default_rng(1)
    heard = []

    def score(median: float, count: int) -> None:
        values = median + rng.uniform(-0.3, 0.3, count)
        values[::10] = NAN
        for begin in range(0, count, chunk):
            part = values[begin : begin + chunk]
            stream.health.scored(scores(START + score.at, part))  # type: ignore[attr-defined]
            score.at += len(part)  # type: ignore[attr-defined]
            stream.second += 10
            stream.events += stream.health.advance(stream.now, live=False)
        heard.append(stream.said())

    score.at = 0  # type: ignore[attr-defined]
    health_off = ("NO_DATA",)
    stream.make = lambda: StreamHealth(
        HealthSettings(drift_s=2400, off=health_off), TIMING, AB, 2.0, 0.5
    )
    stream.health = stream.make()
    score(0.5, 3000)
    score(9.0, 800)
    score(0.5, 3000)
    score(2.5, 3000)
    score(1.6, 3000)
    score(0.5, 3000)
    drift = "DRIFT"
    assert heard == [[], [], [], [("new", drift, ())], [], [("end", drift, ())]]


def test_a_condition_that_comes_and_goes_does_not_flap() -> None:
    stream = Stream(bounds={"a": (-10.0, 10.0)})
    for _ in range(30):
        stream.pass_time(1, 99.0, 0.0)
        stream.pass_time(70, "noise", 0.0)
    kinds = [kind for kind, *_ in stream.said()]
    assert 1 < kinds.count("new") == kinds.count("end") <= 30 * 71 // 600 + 1


def test_conditions_can_be_switched_off() -> None:
    stream = Stream(off=("NO_DATA", "CLOCK"))
    stream.synchronised = False
    stream.pass_time(3000)
    assert stream.said() == []


def test_what_was_learned_survives_a_restart() -> None:
    stream = Stream()
    stream.pass_time(500, "noise", "noise")
    stream.pass_time(400, "noise", 1.25)
    state = stream.health.snapshot()
    stream.health = stream.make()
    stream.health.restore(state)
    stream.pass_time(150, "noise", 1.25)
    assert stream.said() == []
    stream.pass_time(60, "noise", 1.25)
    assert stream.said() == [("new", "STUCK", (1,))]
    with pytest.raises(DataError, match="does not fit"):
        stream.make().restore({"usual_s": np.zeros(3)})


def test_bounds_of_a_channel_that_is_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match="no channel 'c': a, b"):
        StreamHealth(HealthSettings(bounds={"c": (0.0, 1.0)}), TIMING, AB, 1, 0)


# --- with a bundle and an outbox
