"""What every registered detector keeps to."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from oracles.histories import history, short_timing, sines

from edge_tsad.detectors.base import Detector
from edge_tsad.errors import ConfigError, DataError
from edge_tsad.registry import DETECTORS
from edge_tsad.runtime.backends.checks import DETAIL, MOST_DETAILS, detail_names

EFFORT = 0.06
POINTS = 600

Arrays = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


@cache
def fitted(name: str, channels: int, seed: int = 0) -> Detector:
    series = history(sines(POINTS, channels=channels))
    made: Detector = DETECTORS[name].fit(series, short_timing(), seed=seed, effort=EFFORT)
    return made


@pytest.fixture(params=[(name, channels) for name in DETECTORS for channels in (1, 3)], ids=str)
def detector(request: pytest.FixtureRequest) -> Detector:
    return fitted(*request.param)


def windows_of(detector: Detector, count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(1)
    values = sines(POINTS, channels=detector.channels, seed=5)
    starts = rng.integers(POINTS - detector.timing.window, size=count)
    window = np.stack([values[start : start + detector.timing.window] for start in starts])
    observed = (rng.random(window.shape) < 0.8).astype(np.float32)
    observed[0] = 1
    observed[1] = 0
    observed[2, 16:32] = 0
    return torch.from_numpy(window), torch.from_numpy(observed)


def outputs(detector: Detector, window: torch.Tensor, observed: torch.Tensor) -> Arrays:
    with torch.inference_mode():
        return {name: tensor.numpy() for name, tensor in detector(window, observed).items()}


def test_outputs_have_the_declared_names_shapes_and_types(detector: Detector) -> None:
    window, observed = windows_of(detector)
    out = outputs(detector, window, observed)
    details = detail_names(out)
    assert set(out) - {"expected", *details} == {"score", "channel_score"}
    assert all(out[name].shape == window.shape[:2] and DETAIL.fullmatch(name) for name in details)
    assert len(details) <= MOST_DETAILS
    assert out["score"].shape == window.shape[:2]
    assert out["channel_score"].shape == window.shape
    assert out.get("expected", out["channel_score"]).shape == window.shape
    assert all(array.dtype == np.float32 for array in out.values())


def test_scores_are_finite_and_not_negative(detector: Detector) -> None:
    out = outputs(detector, *windows_of(detector))
    assert all(np.isfinite(array).all() for array in out.values())
    assert out["score"].min() >= 0
    assert out["channel_score"].min() >= 0


@pytest.mark.parametrize("level", [1e5, -1e5, 1e30, float(np.finfo(np.float32).max)])
def test_a_failed_sensor_scores_finitely_and_above_all_normal_points(
    detector: Detector, level: float
) -> None:
    window, _ = windows_of(detector)
    observed = torch.ones_like(window)
    normal = outputs(detector, window, observed)["score"].max()
    failed = window.clone()
    failed[:, 24:, 0] = level
    out = outputs(detector, failed, observed)
    assert all(np.isfinite(array).all() for array in out.values())
    assert out["score"][:, 24:].min() > normal
    failed[:] = level
    assert outputs(detector, failed, observed)["score"].min() > normal


def test_a_missing_value_has_no_say(detector: Detector) -> None:
    window, observed = windows_of(detector)
    other = torch.where(observed > 0, window, torch.full_like(window, -1234.5))
    first, second = outputs(detector, window, observed), outputs(detector, other, observed)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)


def test_nothing_observed_scores_nothing(detector: Detector) -> None:
    window, observed = windows_of(detector)
    assert outputs(detector, window, torch.zeros_like(observed))["score"].max() == 0


def test_a_window_scores_the_same_alone_and_among_others(detector: Detector) -> None:
    window, observed = windows_of(detector)
    together = outputs(detector, window, observed)
    for row in range(len(window)):
        alone = outputs(detector, window[row : row + 1], observed[row : row + 1])
        for name, array in alone.items():
            np.testing.assert_allclose(array[0], together[name][row], rtol=1e-4, atol=1e-5)


def test_settings_and_weights_make_the_same_detector(detector: Detector) -> None:
    settings = json.loads(json.dumps(detector.settings()))
    again = type(detector).from_settings(settings)
    again.load_state_dict(detector.state_dict())
    assert not again.training
    assert again.timing == detector.timing
    assert again.channels == detector.channels
    window, observed = windows_of(detector)
    for name, array in outputs(again, window, observed).items():
        np.testing.assert_array_equal(array, outputs(detector, window, observed)[name])


@pytest.mark.parametrize("change", [{"nonsense": 1}, {"timing": {}}, {"channels": 0}])
def test_settings_of_something_else_are_refused(detector: Detector, change: Any) -> None:
    with pytest.raises(ConfigError):
        type(detector).from_settings({**detector.settings(), **change})


def test_no_control_flow_depends_on_data(detector: Detector) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        detector, windows_of(detector), dynamic_shapes=({0: batch}, {0: batch})
    )
    window, observed = windows_of(detector, count=9)
    exported = program.module()(window, observed)["score"].numpy()
    np.testing.assert_allclose(
        exported, outputs(detector, window, observed)["score"], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", list(DETECTORS))
def test_equal_seeds_give_equal_weights_and_leave_the_global_state_alone(name: str) -> None:
    first = fitted(name, 1)
    state = torch.get_rng_state()
    series = history(sines(POINTS))
    second = DETECTORS[name].fit(series, short_timing(), seed=0, effort=EFFORT)
    assert torch.equal(state, torch.get_rng_state())
    assert not second.training
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[key]), key
    other = fitted(name, 1, seed=1)
    assert any(
        not torch.equal(tensor, other.state_dict()[key])
        for key, tensor in first.state_dict().items()
    )


@pytest.mark.parametrize("name", list(DETECTORS))
def test_unknown_options_and_unfit_histories_are_refused(name: str) -> None:
    series = history(sines(POINTS))
    with pytest.raises(ConfigError, match="nonsense"):
        DETECTORS[name].fit(series, short_timing(), seed=0, nonsense=1)
    with pytest.raises(ConfigError, match="nonsense"):
        DETECTORS[name].check_options({"nonsense": 1})
    DETECTORS[name].check_options({"effort": 0.5})
    with pytest.raises(ConfigError, match="effort"):
        DETECTORS[name].fit(series, short_timing(), seed=0, effort=0.0)
    with pytest.raises(DataError, match="history"):
        DETECTORS[name].fit(history(sines(40)), short_timing(), seed=0)


@pytest.mark.parametrize("name", list(DETECTORS))
def test_progress_is_told_step_by_step(name: str) -> None:
    told: list[tuple[int, int]] = []

    def tell(step: int, steps: int, loss: float) -> None:
        assert np.isfinite(loss)
        told.append((step, steps))

    series = history(sines(POINTS))
    DETECTORS[name].fit(series, short_timing(), seed=0, progress=tell, effort=0.01)
    steps = told[0][1]
    assert told == [(step, steps) for step in range(1, steps + 1)]
