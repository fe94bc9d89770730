"""The smallest thing that is a detector: for tests of what comes after one."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from edge_tsad.detectors.base import Detector, Progress
from edge_tsad.training.series import Series
from edge_tsad.types import FloatArray, Timing

PATCH = 8


class ToyDetector(Detector):
    """One convolution and two linear layers over patches; fitted to sines in a second."""

    name: ClassVar[str] = "toy"

    def __init__(self, timing: Timing, channels: int, width: int = 32) -> None:
        super().__init__()
        self.timing, self.channels, self.width = timing, channels, width
        self.register_buffer("scale", torch.ones(channels))
        self.embed = nn.Linear(PATCH * channels * 2, width)
        self.mix = nn.Conv1d(width, width, 3, padding=1, groups=width)
        self.hidden = nn.Linear(width, width)
        self.points = nn.Linear(width, PATCH * channels)

    @classmethod
    def plan(cls, history: Series, **options: Any) -> Timing:
        raise NotImplementedError

    @classmethod
    def fit(
        cls,
        history: Series,
        timing: Timing,
        *,
        seed: int,
        progress: Progress | None = None,
        **options: Any,
    ) -> ToyDetector:
        raise NotImplementedError

    @classmethod
    def check_options(cls, options: dict[str, Any]) -> None:
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        return {"width": self.width}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> ToyDetector:
        raise NotImplementedError

    def forward(self, window: Tensor, observed: Tensor) -> dict[str, Tensor]:
        x = window * observed / self.scale
        count, points, channels = x.shape
        patches = torch.cat([x, observed], dim=2).reshape(count, points // PATCH, -1)
        features = torch.relu(self.embed(patches))
        features = features + self.mix(features.transpose(1, 2)).transpose(1, 2)
        features = torch.relu(self.hidden(features))
        expected = self.points(features).reshape(count, points, channels)
        residual = torch.abs(x - expected) * observed
        return {
            "expected": expected * self.scale,
            "channel_score": residual,
            "score": residual.mean(dim=2),
        }


def sines(count: int, timing: Timing, channels: int, seed: int) -> FloatArray:
    """Noisy sines f32[count, T, C] of random phase; channel c swings by 10 · (c + 1)."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    angle = 2 * np.pi * np.arange(timing.window)[None, :, None] / timing.period + phase
    swing = 10.0 * (1 + np.arange(channels))
    noise = rng.normal(0, 0.05, (count, timing.window, channels))
    return ((np.sin(angle) + noise) * swing).astype(np.float32)


def toy(channels: int = 2, seed: int = 0, steps: int = 100) -> ToyDetector:
    """A toy that has learnt `sines` of 64 points, period 16."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        timing = Timing(step_ns=10**9, window=64, hop=8, delay=16, smoothing=1, period=16)
        detector = ToyDetector(timing, channels)
        detector.scale.copy_(10.0 * torch.arange(1, channels + 1))
        optimizer = torch.optim.Adam(detector.parameters(), 1e-2)
        for step in range(steps):
            window = torch.from_numpy(sines(32, timing, channels, seed + step))
            optimizer.zero_grad()
            loss = detector(window, torch.ones_like(window))["score"].mean()
            loss.backward()
            optimizer.step()
    return detector.eval()
