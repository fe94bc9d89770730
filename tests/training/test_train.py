"""From a history to a model file and back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles.histories import history, sines

from edge_tsad.errors import BundleError, ConfigError, DataError
from edge_tsad.training.fit import train
from edge_tsad.training.model import TrainedModel

STEPS = 24
OPTIONS = {"steps": STEPS, "window": 64, "batch": 8}


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    values = sines(1500, channels=2)
    values[100:240, 0] = np.nan
    values[:, 1] = 4.0
    return train(history(values), seed=3, options=dict(OPTIONS))


@pytest.fixture(scope="module")
def saved(model: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    model.save(path)
    return path


def test_the_model_has_what_export_and_people_need(model: TrainedModel) -> None:
    assert model.timing.window == 64
    window, observed = model.validation
    assert window.shape == observed.shape
    assert window.shape[1:] == (64, 2)
    assert window.dtype == observed.dtype == np.float32
    assert model.calibration
    assert all(block.dtype == np.float32 for block in model.calibration)
    assert model.policy.resolve_after == model.timing.period
    facts = json.loads(json.dumps(model.facts))
    assert facts["points"] == 1500
    assert facts["seed"] == 3
    assert facts["period_found"]
    assert facts["period"] == 16
    assert facts["missing_share"] == pytest.approx(140 / 3000, abs=1e-6)
    assert facts["parameters"] == model.detector.parameter_count()
    assert facts["seconds"] > 0
    assert facts["loss_curve"]
    assert "torch" in facts["versions"]
    assert any("'c1' is constant (4)" in warning for warning in facts["warnings"])


def test_save_and_load_give_the_same_model(model: TrainedModel, saved: Path) -> None:
    again = TrainedModel.load(saved)
    for field in ("channels", "policy", "tail", "facts", "timing"):
        assert getattr(again, field) == getattr(model, field), field
    for before, after in zip(
        [*model.calibration, *model.validation],
        [*again.calibration, *again.validation],
        strict=True,
    ):
        np.testing.assert_array_equal(before, after)
    window, observed = (torch.from_numpy(array) for array in model.validation)
    first, second = model.detector(window, observed), again.detector(window, observed)
    assert torch.equal(first["score"], second["score"])


def test_saving_twice_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    TrainedModel.load(saved).save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def test_a_damaged_file_is_refused_in_one_sentence(saved: Path, tmp_path: Path) -> None:
    data = saved.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [b"", data[:5], data[:-1], data + b"x", b"\x80\x04pickle", b"\xff" * 100]
    for place in [*rng.integers(len(data), size=40).tolist(), 0, 9, len(data) - 1]:
        changed = bytearray(data)
        changed[place] ^= 0x41
        damaged.append(bytes(changed))
    path = tmp_path / "damaged"
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(BundleError) as error:
            TrainedModel.load(path)
        assert "\n" not in str(error.value)
        assert "damaged" in str(error.value)


def test_a_missing_file_and_a_missing_folder_are_told(model: TrainedModel, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        TrainedModel.load(tmp_path / "none")
    with pytest.raises(BundleError, match="nothing was changed"):
        model.save(tmp_path / "no" / "folder")


def test_equal_seeds_give_equal_models(model: TrainedModel) -> None:
    values = sines(1500, channels=2)
    values[100:240, 0] = np.nan
    values[:, 1] = 4.0
    told: list[tuple[int, int]] = []
    again = train(
        history(values),
        seed=3,
        options=dict(OPTIONS),
        progress=lambda step, steps, loss: told.append((step, steps)),
    )
    assert [step for step, _ in told] == list(range(1, told[-1][1] + 1))
    assert again.tail == model.tail
    for before, after in zip(model.calibration, again.calibration, strict=True):
        np.testing.assert_array_equal(before, after)


def test_labelled_anomalies_are_left_out_and_said() -> None:
    values = sines(800)
    labels = np.zeros(800, np.uint8)
    values[300:330], labels[300:330] = 500, 1
    series = dataclasses.replace(history(values), labels=labels)
    trained = train(series, seed=0, options=dict(OPTIONS))
    assert trained.facts["labelled_points_left_out"] == 30
    assert any("30 labelled" in warning for warning in trained.facts["warnings"])
    assert float(trained.detector.state_dict()["scale"]) < 4


def test_effort_is_spent_on_the_shipped_net_and_on_calibration() -> None:
    told: dict[float, list[tuple[int, int]]] = {}
    for effort in (0.5, 1.5):
        steps = told[effort] = []
        options = OPTIONS | {"effort": effort}
        model = train(
            history(sines(800)),
            seed=0,
            options=options,
            progress=lambda step, of, _, steps=steps: steps.append((step, of)),
        )
        assert model.facts["options"]["effort"] == effort
    # The net itself and two halves of it for the calibration.
    assert told[0.5][-1] == (STEPS, STEPS)
    assert told[1.5][-1] == (3 * STEPS, 3 * STEPS)


def test_unfit_histories_and_options_are_refused_in_words() -> None:
    series = history(sines(800))
    with pytest.raises(ConfigError, match="'nonsense' is unknown"):
        train(series, "nonsense", seed=0)
    with pytest.raises(ConfigError, match="nonsense"):
        train(series, seed=0, options={"nonsense": 1})
    for effort in (0.0, 11, "much"):
        with pytest.raises(ConfigError, match="effort"):
            train(series, seed=0, options={"effort": effort})
    with pytest.raises(DataError, match="too few"):
        train(history(sines(50)), seed=0)
    with pytest.raises(DataError, match="constant"):
        train(history(np.ones((800, 1), np.float32)), seed=0)
