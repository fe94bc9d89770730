"""A trained model around the toy detector, with calibration scores of some length."""

from __future__ import annotations

import functools

import numpy as np
from oracles import toy_files

from edge_tsad.training.calibrate import fit_tail
from edge_tsad.training.model import TrainedModel
from edge_tsad.types import Channel, PolicySettings


@functools.cache
def toy_model(points: int = 20_000, channel: str = "pressure") -> TrainedModel:
    """``points`` calibration scores in each of two blocks; the first channel's name is given."""
    rng = np.random.default_rng(0)
    calibration = [rng.gamma(9, 0.02, points).astype(np.float32) for _ in range(2)]
    calibration[0][: points // 200] = np.nan
    policy = PolicySettings()
    normal = toy_files.normal()
    facts = {
        "history": "sines",
        "points": 2 * points,
        "seed": 0,
        "loss_curve": [3.0, 2.0, 1.5],
        "warnings": ["a <b>bold</b> warning"],
    }
    return TrainedModel(
        toy_files.detector(),
        (Channel(channel, "bar"), Channel("flow")),
        policy,
        fit_tail(calibration, policy, 0),
        calibration,
        (normal.window, normal.observed),
        toy_files.held_out(),
        facts,
    )
