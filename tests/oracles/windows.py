"""A small stand-in for a model: every output depends on every point and every mask."""

from __future__ import annotations

import numpy as np


def window_score(window: np.ndarray, observed: np.ndarray) -> dict[str, np.ndarray]:
    """f32[T, C] → score [T], channel_score [T, C], expected [T, C]; same bits in any batch."""
    values = np.array(window, np.float64, order="C")
    mask = np.array(observed, np.float64, order="C")
    points = np.arange(1, len(values) + 1)[:, None]
    centre = (values * mask * points).sum(axis=0) / points.sum()
    channel = np.abs(values - centre) * (0.5 + mask) + points / len(values)
    return {
        "score": channel.sum(axis=1).astype(np.float32),
        "channel_score": channel.astype(np.float32),
        "expected": (values / 2 + centre).astype(np.float32),
    }


class NumpyBackend:
    """`window_score` as a backend; counts its calls and checks what it is given."""

    name = "numpy"

    def __init__(self, max_batch: int = 1, *, has_expected: bool = True) -> None:
        self.max_batch = max_batch
        self.has_expected = has_expected
        self.batches: list[int] = []

    def score(self, windows: np.ndarray, observed: np.ndarray) -> dict[str, np.ndarray]:
        assert 1 <= len(windows) <= self.max_batch
        assert windows.shape == observed.shape
        assert windows.dtype == observed.dtype == np.float32
        assert not windows.flags.writeable
        assert np.isfinite(windows).all()
        self.batches.append(len(windows))
        outputs = [window_score(*pair) for pair in zip(windows, observed, strict=True)]
        names = ["score", "channel_score"] + ["expected"] * self.has_expected
        return {name: np.stack([output[name] for output in outputs]) for name in names}


class ConstantBackend:
    """The cheapest model there is: the score of a point is its value."""

    name = "constant"

    def __init__(self, max_batch: int = 1) -> None:
        self.max_batch = max_batch

    def score(self, windows: np.ndarray, observed: np.ndarray) -> dict[str, np.ndarray]:
        return {"score": windows[:, :, 0], "channel_score": windows}
