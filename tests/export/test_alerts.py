"""The stream that files are compared on: anomalies in normal operation until enough alarm."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
from oracles import toy_files

from edge_tsad.errors import DataError
from edge_tsad.training.series import Segment
from edge_tsad.types import PolicySettings
from export import alerts
from export.alerts import LEAST_ALERTS, Stream, compose
from export.gate import Gate
from export.injection import EVENTS, Injector
from export.subject import subject_of

TIMING = toy_files.detector().timing
SPACING = 2 * TIMING.period + TIMING.window // 2 + 1
"""Of settings that let an alert end at once."""


def rounds(*severities, observed=None, seed=1):
    held_out = toy_files.held_out()
    if observed is not None:
        held_out = Segment(held_out.values, observed)
    injector = Injector(held_out, TIMING, PolicySettings(), seed)
    return [injector.round(severity) for severity in severities]


class TestInjector:
    def test_most_stays_normal_and_each_stretch_has_an_anomaly(self):
        (values,) = rounds(1)
        again = np.resize(toy_files.held_out().values, (EVENTS * SPACING, 2)).reshape(values.shape)
        changed = (values != again).any(axis=2)
        assert changed.any(axis=1).mean() > 0.9
        assert changed.mean() < 0.3
        assert not changed[:, 2 * TIMING.period :].any(), "quiet, so that an alert can end"

    def test_rounds_go_on_where_the_last_one_ended(self):
        quiet = slice(-5, None)
        first, second = rounds(1, 1)
        again = np.resize(toy_files.held_out().values, (2 * EVENTS * SPACING, 2))
        again = again.reshape(2 * EVENTS, SPACING, 2)[:, quiet]
        assert np.array_equal(np.concatenate([first, second])[:, quiet], again)

    def test_a_higher_severity_reaches_further(self):
        usual, strong = rounds(1)[0], rounds(20)[0]
        assert np.abs(strong).max() > 10 * np.abs(usual).max()

    def test_equal_seeds_give_equal_rounds(self):
        assert np.array_equal(*(rounds(1, 3)[1] for _ in range(2)))
        assert not np.array_equal(rounds(1)[0], rounds(1, seed=2)[0])

    def test_missing_values_stay_missing(self):
        observed = np.ones_like(toy_files.held_out().observed)
        observed[::7] = 0
        values = rounds(1, observed=observed)[0]
        assert np.isnan(values).mean() == pytest.approx(1 / 7, abs=0.01)


class TestCompose:
    @pytest.fixture(scope="class")
    def subject(self):
        return subject_of(toy_files.model(), 0)

    @pytest.mark.parametrize("height", [1, 30])
    def test_goes_on_and_gets_stronger_until_enough_anomalies_alarm(self, subject, height):
        usual = subject.threshold(None)
        value = usual.median + height * (usual.value - usual.median)
        threshold = dataclasses.replace(usual, value=value)
        stream, onsets = compose(subject, threshold, seed=0)
        assert len(onsets) >= LEAST_ALERTS
        assert stream.events >= LEAST_ALERTS
        assert stream.events == LEAST_ALERTS or len(onsets) < LEAST_ALERTS + 5, "and no longer"
        assert np.array_equal(stream.values[: stream.injected_from], subject.held_out.values)
        again, same = compose(subject, threshold, seed=0)
        assert np.array_equal(stream.values, again.values)
        assert np.array_equal(onsets, same)

    def test_a_model_that_hardly_alarms_is_an_error(self, subject, monkeypatch):
        monkeypatch.setattr(alerts, "MOST_ROUNDS", 1)
        monkeypatch.setattr("export.gate.LEAST_COMPARED", LEAST_ALERTS)
        with pytest.raises(DataError, match=rf"where {LEAST_ALERTS} are needed to compare files"):
            Gate.of(subject, None, 0)

    def test_ends_and_warns_where_too_few_alarm(self, subject, monkeypatch, caplog):
        monkeypatch.setattr(alerts, "MOST_ROUNDS", 1)
        with caplog.at_level(logging.WARNING, "export.gate"):
            gate = Gate.of(subject, None, 0)
        assert gate.stream.events == EVENTS
        assert len(gate.expected) < LEAST_ALERTS
        assert f"where {LEAST_ALERTS} are wanted" in caplog.text


class TestWindowsOfAStream:
    def test_are_of_what_was_injected(self):
        values = np.arange(100, dtype=np.float32)[:, None]
        windows = Stream(values, 40, 1).windows(10, 5)
        assert windows.window.shape == windows.observed.shape == (5, 10, 1)
        assert windows.window[:, 0, 0].tolist() == [40, 52, 65, 77, 90]
        assert (np.diff(windows.window[:, :, 0]) == 1).all()
        assert (windows.observed == 1).all()

    def test_a_missing_value_is_the_one_before_it(self):
        values = np.array([[np.nan], [1], [np.nan], [np.nan], [4]], np.float32)
        windows = Stream(values, 0, 1).windows(5, 1)
        assert windows.window[0, :, 0].tolist() == [0, 1, 1, 1, 4]
        assert windows.observed[0, :, 0].tolist() == [0, 1, 0, 0, 1]

    def test_few_injected_points_are_joined_by_those_before(self):
        values = np.arange(10, dtype=np.float32)[:, None]
        assert Stream(values, 8, 1).windows(5, 3).window[:, 0, 0].tolist() == [5]
