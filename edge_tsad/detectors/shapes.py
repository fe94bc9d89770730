"""How far a window's stretches are from every shape that the history holds.

Nearest-neighbour distance of z-normalised subsequences is the matrix profile's measure of a discord
(Yeh et al., "Matrix Profile I", ICDM 2016), taken here against the history alone, whose
subsequences are condensed to k-means centres so that a small device can hold and search them. Such
a bank needs no gradient, and errs elsewhere than a net that was trained on simulated anomalies.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn
from torch.nn.functional import linear

from edge_tsad.training.series import Segment
from edge_tsad.types import FloatArray, Timing

__all__ = ["ShapeBank", "banks_for"]

SHAPES = 256
"""Shapes in a bank; 512 found no more anomalies, 128 fewer."""

SCALES = ((1.0, 64), (0.5, 32))
"""Lengths of the stretches in periods, and the values that a shape of this length has about: two
lengths together found more than either."""

LONGEST_SHARE = 4
"""A stretch is at most the window's length divided by this, so that most of the window is judged
and the newest points have to wait no longer than the delay."""

POSITIONS = 8
"""Stretches that begin within the length of one, at least; more would tell no more."""

SHORTEST = 8
"""Points, and values of a shape, below which a stretch has no shape."""

FLATTEST = 0.2
"""Stretches that vary by less than this share of the channel's standard deviation are not blown up
any further: the noise on a plateau is no shape."""

NORMAL_QUANTILE = 0.99
"""The quantile of the history's own distances that becomes 1."""

LEAST_UNIT = 0.2
"""The least distance that becomes 1: a stretch this near correlates by .98 with a known one, and
finer differences are as small as the rounding of quantized files."""

SOFTENING = 0.05
"""Distances well below this count as none. A root has no bound on its slope at 0, so that rounding
would show in the scores of a signal without noise."""

GRID = 127
"""Steps to each side on which the values of a shape lie, so that int8 weights hold them exactly."""

MOST_STRETCHES = 20_000
"""Stretches of history that are clustered, drawn at random where there are more."""

LEAST_SPREAD = 1e-3
"""Least standard deviation of a channel, in scaled units; a constant channel has none."""

Float64 = npt.NDArray[np.float64]


class ShapeBank(nn.Module):
    """Distances to the nearest of ``SHAPES`` shapes of L values, each the mean of ``step`` points.

    One bank serves all channels: each is a series of its own here, scaled by its own spread, and
    what is normal in one may appear in another.
    """

    flattest: Tensor
    shapes: Tensor
    unit: Tensor

    def __init__(self, window: int, channels: int, points: int, values: int) -> None:
        """For stretches of about ``points`` points as shapes of about ``values`` values."""
        super().__init__()
        self.window, self.channels = window, channels
        self.step = max(1, round(points / values))
        self.values = max(SHORTEST, round(points / self.step))
        self.stride = max(1, self.values // POSITIONS)
        self.register_buffer("shapes", torch.zeros(SHAPES, self.values))
        self.register_buffer("flattest", torch.ones(channels))
        self.register_buffer("unit", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """f32[B, T, C] ≥ 0 of scaled and complete ``x`` f32[B, T, C].

        1 is the distance that a hundredth of the history exceeds. A stretch counts around its
        middle; points near both ends take the value of the nearest stretch.
        """
        count = self.window // self.step
        series = x[:, self.window - count * self.step :].transpose(1, 2)
        coarse = series.reshape(-1, self.channels, count, self.step).mean(dim=3)
        distance = self._nearest(_stretches(coarse, self.values)[:, :, :: self.stride])
        distance = distance.transpose(1, 2) / self.unit
        # Repeated by broadcasting, which needs no table of indices in a file.
        each = self.stride * self.step
        points = distance.unsqueeze(2).expand(-1, -1, each, -1).flatten(1, 2)
        left = self.window - count * self.step + (self.values - self.stride) // 2 * self.step
        right = self.window - left - points.shape[1]
        before, after = points[:, :1].expand(-1, left, -1), points[:, -1:].expand(-1, right, -1)
        return torch.cat([before, points, after], dim=1)

    def _nearest(self, stretches: Tensor) -> Tensor:
        """Distances f32[B, C, n] of ``stretches`` f32[B, C, n, L]."""
        shape = stretches - stretches.mean(dim=3, keepdim=True)
        spread = torch.sqrt(shape.square().mean(dim=3, keepdim=True))
        # Normalised before the product: a level would cost the precision of what is compared.
        shape = shape / (torch.maximum(spread, self.flattest[:, None, None]) * self.values**0.5)
        size = self.shapes.square().sum(dim=1)
        nearest = (2 * linear(shape, self.shapes) - size).amax(dim=3)
        square = (shape.square().sum(dim=3) - nearest).clamp(min=0.0)
        return torch.sqrt(square + SOFTENING**2) - SOFTENING

    def fit(self, scaled: list[Segment], rng: np.random.Generator) -> None:
        """Fill the bank from the history's stretches, ``scaled`` like ``forward``'s input."""
        spread = np.array([_spread(scaled, channel) for channel in range(self.channels)])
        flattest = FLATTEST * spread
        parts = [
            self._stretches(scaled, channel, flattest[channel]) for channel in range(self.channels)
        ]
        most = max(SHAPES, MOST_STRETCHES // self.channels)
        parts = [
            part if len(part) <= most else part[np.sort(rng.choice(len(part), most, replace=False))]
            for part in parts
        ]
        shapes = _centres(np.concatenate(parts), int(rng.integers(1 << 31)))
        unit = [
            float(np.quantile(_distances(part, shapes), NORMAL_QUANTILE)) if len(part) else 1.0
            for part in parts
        ]
        self.shapes.copy_(torch.from_numpy(shapes))
        self.flattest.copy_(torch.from_numpy(flattest))
        self.unit.copy_(torch.tensor(unit).clamp(min=LEAST_UNIT))

    def _stretches(self, scaled: list[Segment], channel: int, flattest: float) -> FloatArray:
        """All fully observed stretches of one channel as shapes f32[n, L] of norm ≤ 1."""
        reach = (self.values - 1) * self.step + 1
        found = [np.empty((0, self.values))]
        for segment in scaled:
            coarse = _moving_mean(segment.values[:, channel], self.step)
            complete = _moving_mean(segment.observed[:, channel], self.step) > 1 - 1e-6
            if len(coarse) < reach:
                continue
            views = np.lib.stride_tricks.sliding_window_view
            whole = views(complete, reach)[:, :: self.step].all(axis=1)
            found.append(views(coarse, reach)[:, :: self.step][whole])
        stretches = np.concatenate(found)
        stretches = stretches - stretches.mean(axis=1, keepdims=True)
        divisor = np.maximum(stretches.std(axis=1, keepdims=True), flattest)
        return np.asarray(stretches / (divisor * self.values**0.5), np.float32)


def banks_for(timing: Timing, channels: int) -> nn.ModuleList:
    """Empty banks for the lengths of ``SCALES``."""
    longest = min(timing.period, timing.window // LONGEST_SHARE)
    return nn.ModuleList(
        ShapeBank(timing.window, channels, max(SHORTEST, round(share * longest)), values)
        for share, values in SCALES
    )


def _stretches(series: Tensor, length: int) -> Tensor:
    """f32[B, C, n] → f32[B, C, n − length + 1, length]: all stretches.

    By joining shorter ones, doubling their length: the indices of ``Tensor.unfold`` would be the
    largest part of an exported file.
    """
    found, size = series.unsqueeze(3), 1
    while size < length:
        more = min(size, length - size)
        count = series.shape[2] - size - more + 1
        later = found[:, :, more : more + count, size - more :]
        found = torch.cat([found[:, :, :count], later], dim=3)
        size += more
    return found


def _spread(scaled: list[Segment], channel: int) -> float:
    """The standard deviation of a channel, at least ``LEAST_SPREAD``."""
    known = np.concatenate(
        [part.values[part.observed[:, channel] > 0, channel] for part in scaled]
    ).astype(np.float64)
    return max(float(known.std()), LEAST_SPREAD) if len(known) else LEAST_SPREAD


def _moving_mean(values: FloatArray, width: int) -> Float64:
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return np.asarray((sums[width:] - sums[:-width]) / width)


def _centres(shapes: FloatArray, seed: int) -> FloatArray:
    """At most ``SHAPES`` k-means centres f32[K, L]; the first repeated where there are fewer.

    A history of fewer stretches than that is its own bank; one without any leaves a flat line.
    """
    if len(shapes) > SHAPES:
        means = MiniBatchKMeans(
            SHAPES, batch_size=2048, n_init=1, max_iter=60, random_state=seed
        ).fit(shapes)
        centres = np.asarray(means.cluster_centers_, np.float32)
    else:
        centres = shapes if len(shapes) else np.zeros((1, shapes.shape[1]), np.float32)
    centres = np.concatenate([centres, np.repeat(centres[:1], SHAPES - len(centres), axis=0)])
    centres = centres - centres.mean(axis=1, keepdims=True)
    step = np.maximum(np.abs(centres).max(axis=1, keepdims=True), 1e-6) / np.float32(GRID)
    return np.asarray(np.rint(centres / step) * step, np.float32)


def _distances(stretches: FloatArray, shapes: FloatArray) -> Float64:
    """The distance f64[n] of each of ``stretches`` f32[n, L] to the nearest shape."""
    size = (shapes * shapes).sum(axis=1)
    nearest = np.concatenate(
        [
            (size - 2 * part @ shapes.T).min(axis=1) + (part * part).sum(axis=1)
            for part in np.array_split(stretches, 1 + len(stretches) // 2048)
        ]
    )
    return np.asarray(np.sqrt(np.maximum(nearest, 0.0)), np.float64)
