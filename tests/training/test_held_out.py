"""What is kept from the fit: the end of a history, where that can be given away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from oracles import toy_files
from oracles.histories import sines

from edge_tsad.training import model as model_file
from edge_tsad.training.held_out import reserve
from edge_tsad.training.series import Segment, Series
from edge_tsad.types import Channel

WINDOW = 50


def series(values: np.ndarray) -> Series:
    times = np.arange(len(values), dtype=np.int64) * 10**9
    channels = tuple(Channel(f"c{i}") for i in range(values.shape[1]))
    return Series(times, values.astype(np.float32), channels, 10**9, name="history")


def test_a_tenth_at_the_end_is_unseen() -> None:
    values = sines(5000, channels=2)
    fitted, held_out, unseen = reserve(series(values), WINDOW)
    assert unseen
    assert len(fitted) == 4500
    assert np.array_equal(held_out.values, values[4500:].astype(np.float32))
    assert held_out.observed.all()


@pytest.mark.parametrize(("points", "count"), [(500, 100), (100_000, 1600)])
def test_two_windows_at_least_and_32_at_most(points: int, count: int) -> None:
    fitted, held_out, unseen = reserve(series(sines(points)), WINDOW)
    assert unseen
    assert (len(fitted), len(held_out)) == (points - count, count)


@pytest.mark.parametrize("points", [120, 499])
def test_a_short_history_is_fitted_to_as_a_whole(points: int) -> None:
    values = sines(points)
    fitted, held_out, unseen = reserve(series(values), WINDOW)
    assert not unseen
    assert len(fitted) == points
    assert np.array_equal(held_out.values, values[-100:].astype(np.float32))


def test_an_end_that_goes_beyond_the_rest_is_fitted_to() -> None:
    values = sines(5000, channels=2)
    values[4800, 1] += 0.05 * np.ptp(values[:, 1])
    assert reserve(series(values), WINDOW).unseen, "a little is allowed"
    values[4800, 1] += 0.5 * np.ptp(values[:, 1])
    fitted, _, unseen = reserve(series(values), WINDOW)
    assert not unseen
    assert len(fitted) == 5000


def test_a_channel_that_is_new_at_the_end_is_fitted_to() -> None:
    values = sines(5000, channels=2)
    values[:4500, 1] = np.nan
    assert not reserve(series(values), WINDOW).unseen
    values[:, 1] = np.nan
    assert reserve(series(values), WINDOW).unseen, "there is nothing new about a dead one"


def test_the_longest_stretch_between_gaps_is_held_out() -> None:
    values = sines(5000)
    values[4600:4700] = np.nan
    _, held_out, unseen = reserve(series(values), WINDOW)
    assert unseen
    assert np.array_equal(held_out.values, values[4700:].astype(np.float32))


def test_an_end_in_shreds_is_no_trial() -> None:
    values = sines(5000)
    for start in range(4500, 5000, 90):
        values[start : start + 60] = np.nan
    fitted, held_out, unseen = reserve(series(values), WINDOW)
    assert not unseen
    assert len(fitted) == 5000
    assert len(held_out) == 500, "the end of the longest stretch of all"


def test_a_model_file_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_files.model()
    observed = model.held_out.observed.copy()
    observed[3, 1] = 0
    model = replace(model, held_out=Segment(model.held_out.values, observed))
    model.save(tmp_path / "toy.safetensors")
    kind = type(model.detector)

    class ToyByName:
        @staticmethod
        def from_settings(settings: dict[str, int]) -> object:
            return kind(model.timing, len(model.channels))

    monkeypatch.setitem(vars(model_file), "DETECTORS", {"toy": ToyByName})
    again = model_file.TrainedModel.load(tmp_path / "toy.safetensors")
    assert np.array_equal(again.held_out.values, model.held_out.values)
    assert np.array_equal(again.held_out.observed, model.held_out.observed)
