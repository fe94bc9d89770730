"""How far a window's stretches are from every shape that the history holds.

Nearest-neighbour distance of z-normalised subsequences is the matrix profile's measure of a discord
(Yeh et al., "Matrix Profile I", ICDM 2016), taken here against the history alone, whose
subsequences are condensed to k-means centres so that a small device can hold and search them. Such
a bank needs no gradient, and errs elsewhere than a net that was trained on simulated anomalies.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn
from torch.nn.functional import linear

from edge_tsad.training.series import Segment
from edge_tsad.types import FloatArray, Timing

__all__ = ["ShapeBank"]

SHAPES = 224
"""Shapes of each length in a bank."""

VALUES = 48
"""Values that one period has in a bank, about; longer periods are coarsened to it."""

SHARES = (0.25, 0.5, 1.0)
"""Lengths of the stretches in periods, ascending: a spike or a step, half a cycle and
a whole one."""

LONGEST_SHARE = 4
"""A stretch is at most the window's length divided by this, so that most of the window is judged
and the newest points have to wait no longer than the delay."""

POSITIONS = 8
"""Stretches that begin within the length of one, at least; more would tell no more."""

SHORTEST = 8
"""Points of a period, and values of a shape, below which a stretch has no shape."""

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
    """Distances to the nearest known shapes of each length, in coarsened windows.

    One bank serves all channels: each is a series of its own here, scaled by its own spread, and
    what is normal in one may appear in another.
    """

    flattest: Tensor

    def __init__(self, timing: Timing, channels: int) -> None:
        """An empty bank; ``fit`` fills it."""
        super().__init__()
        self.window, self.channels = timing.window, channels
        period = max(SHORTEST, min(timing.period, timing.window // LONGEST_SHARE))
        self.step = max(1, round(period / VALUES))
        lengths = {max(SHORTEST, round(share * period / self.step)) for share in SHARES}
        self.sets = nn.ModuleList(ShapeSet(channels, length) for length in sorted(lengths))
        self.register_buffer("flattest", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """f32[B, T, C] ≥ 0 of scaled and complete ``x`` f32[B, T, C]: the mean over the lengths.

        1 is the distance that a hundredth of the history exceeds. A stretch counts around its
        middle; points near both ends take the value of the nearest stretch.
        """
        count = self.window // self.step
        series = x[:, self.window - count * self.step :].transpose(1, 2)
        stretches = series.reshape(-1, self.channels, count, self.step).mean(dim=3, keepdim=True)
        parts = []
        for shapes in self._sets():
            stretches = _lengthened(stretches, shapes.length)
            distance = shapes(stretches[:, :, :: shapes.stride], self.flattest)
            parts.append(self._over_points(distance.transpose(1, 2), shapes))
        return sum(parts[1:], parts[0]) / len(parts)

    def _over_points(self, distance: Tensor, shapes: ShapeSet) -> Tensor:
        """f32[B, T, C] of the distances f32[B, n, C] of stretches a stride apart."""
        # Repeated by broadcasting, which needs no table of indices in a file.
        each = shapes.stride * self.step
        points = distance.unsqueeze(2).expand(-1, -1, each, -1).flatten(1, 2)
        before = (shapes.length - shapes.stride) // 2 * self.step
        left = self.window % self.step + before
        right = self.window - left - points.shape[1]
        first, last = points[:, :1].expand(-1, left, -1), points[:, -1:].expand(-1, right, -1)
        return torch.cat([first, points, last], dim=1)

    def fit(self, scaled: list[Segment], rng: np.random.Generator) -> None:
        """Fill the bank from the history's stretches, ``scaled`` like ``forward``'s input."""
        channels = range(self.channels)
        flattest = FLATTEST * np.array([_spread(scaled, channel) for channel in channels])
        self.flattest.copy_(torch.from_numpy(flattest))
        for shapes in self._sets():
            parts = [
                _normalised(self._stretches(scaled, channel, shapes.length), flattest[channel])
                for channel in channels
            ]
            shapes.fit(parts, rng)

    def _sets(self) -> list[ShapeSet]:
        return [cast(ShapeSet, shapes) for shapes in self.sets]

    def _stretches(self, scaled: list[Segment], channel: int, length: int) -> Float64:
        """All fully observed stretches of one channel, f64[n, L]."""
        reach = (length - 1) * self.step + 1
        found = [np.empty((0, length))]
        views = np.lib.stride_tricks.sliding_window_view
        for segment in scaled:
            coarse = _moving_mean(segment.values[:, channel], self.step)
            complete = _moving_mean(segment.observed[:, channel], self.step) > 1 - 1e-6
            if len(coarse) >= reach:
                whole = views(complete, reach)[:, :: self.step].all(axis=1)
                found.append(views(coarse, reach)[:, :: self.step][whole])
        return np.concatenate(found)


class ShapeSet(nn.Module):
    """``SHAPES`` shapes of one length L; each is what a z-normalised stretch looks like."""

    shapes: Tensor
    half_squares: Tensor
    unit: Tensor

    def __init__(self, channels: int, length: int) -> None:
        super().__init__()
        self.length, self.stride = length, max(1, length // POSITIONS)
        self.register_buffer("shapes", torch.zeros(SHAPES, length))
        self.register_buffer("half_squares", torch.zeros(SHAPES))
        self.register_buffer("unit", torch.ones(channels))

    def forward(self, stretches: Tensor, flattest: Tensor) -> Tensor:
        """Distances f32[B, C, n] of ``stretches`` f32[B, C, n, L] in units of the history's."""
        shape = stretches - stretches.mean(dim=3, keepdim=True)
        spread = torch.sqrt(shape.square().mean(dim=3, keepdim=True))
        # Normalised before the product: a level would cost the precision of what is compared.
        largest = torch.maximum(spread, flattest[:, None, None])
        shape = shape / (largest * self.length**0.5)
        nearest = linear(shape, self.shapes, -self.half_squares).amax(dim=3)
        square = ((spread / largest).square().squeeze(3) - 2 * nearest).clamp(min=0.0)
        return (torch.sqrt(square + SOFTENING**2) - SOFTENING) / self.unit[:, None]

    def fit(self, parts: list[FloatArray], rng: np.random.Generator) -> None:
        """Fill from the normalised stretches f32[n, L] of each channel."""
        most = max(SHAPES, MOST_STRETCHES // len(parts))
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
        self.half_squares.copy_(0.5 * self.shapes.square().sum(dim=1))
        self.unit.copy_(torch.tensor(unit).clamp(min=LEAST_UNIT))


def _lengthened(stretches: Tensor, length: int) -> Tensor:
    """All stretches f32[B, C, n − (L − K), L] of a series, from all its stretches f32[B, C, n, K].

    By joining overlapping ones, at most doubling their length: the indices of ``Tensor.unfold``
    would be the largest part of an exported file.
    """
    while (size := stretches.shape[3]) < length:
        more = min(size, length - size)
        count = stretches.shape[2] - more
        later = stretches[:, :, more:, size - more :]
        stretches = torch.cat([stretches[:, :, :count], later], dim=3)
    return stretches


def _normalised(stretches: Float64, flattest: float) -> FloatArray:
    """Stretches [n, L] as shapes f32[n, L] of norm ≤ 1."""
    centred = stretches - stretches.mean(axis=1, keepdims=True)
    divisor = np.maximum(centred.std(axis=1, keepdims=True), flattest)
    return np.asarray(centred / (divisor * stretches.shape[1] ** 0.5), np.float32)


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
