"""The state of all channels together, and how far it is from any the history had.

A fault often moves several channels a little in a way they never move together. What says so is the
distance to the history's mean along the principal components of the history, each in units of its
own spread: z → R^(−1/2) z, R being the correlations (with a ridge). Of all square roots of R⁻¹ the
symmetric one leaves each channel its place, so that it also says which channels it is that moved.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edge_tsad.detectors.cmdml_net import WEIGHT_FLOOR, patches_of
from edge_tsad.detectors.directions import conformal_quantile
from edge_tsad.detectors.modalities import Stretches

__all__ = ["JointState", "OverPatches"]

RIDGE = 0.1
"""Added to the variance 1 of every standardised feature: components that a short history shows by
chance to be still must not count without bound."""

SPREAD_FLOOR = 0.03
"""Least spread of a feature, likewise; 1 is a channel's robust standard deviation."""

LOG_FLOOR = 0.05
LEVEL_FLOOR = 0.02
LEVEL_TAIL = 0.01
"""The share of normal states beyond the level."""


class OverPatches(nn.Module):
    """What runs of ``length`` patches tell, as values of the patches.

    A patch has the weighted mean of the runs that cover it, 0 where there is none.
    """

    def __init__(self, patches: int, length: int) -> None:
        super().__init__()
        self.length = length
        self.covering = Stretches(patches + length - 1, length)

    def forward(self, values: Tensor, weight: Tensor, first: int) -> Tensor:
        """f32[B, c, j] with ``weight`` f32[B, c or 1, j] → f32[B, c, N].

        The runs end at the patches from ``first`` on.
        """
        before, after = first - self.length + 1, self.length - 1
        both = torch.stack([values * weight, weight.expand_as(values)], dim=3)
        empty = torch.zeros_like(both[:, :, :1])
        both = torch.cat(
            [empty.expand(-1, -1, after + before, -1), both, empty.expand(-1, -1, after, -1)], dim=2
        )
        sums = torch.sum(self.covering(both), dim=3)
        return sums[..., 0] / sums[..., 1].clamp(min=WEIGHT_FLOOR)


class JointState(nn.Module):
    """The deviation of the state over ``length`` patches, for each of ``patches`` patches.

    The state is each channel's mean and, where ``moving``, the logarithms of its standard deviation
    and of its mean |first difference|.
    """

    centre: Tensor
    whitening: Tensor
    level: Tensor

    def __init__(self, channels: int, patches: int, length: int, *, moving: bool) -> None:
        super().__init__()
        self.channels, self.moving = channels, moving
        self.runs = Stretches(patches, length)
        self.over_patches = OverPatches(patches, length)
        size = channels * (3 if moving else 1)
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("whitening", torch.eye(size))
        self.register_buffer("level", torch.ones(1))

    def forward(self, x: Tensor, observed: Tensor) -> Tensor:
        """Deviations f32[B, C, N] of the channels in units of the level, mean square 1 there.

        A channel that was mostly not observed in a run has none there, nor a say in the others'.
        """
        state, weight = self.states(x, observed)
        deviation = self.deviation(state, weight) / self.level
        first = self.runs.length - 1
        known = weight.amax(dim=1, keepdim=True)
        spread: Tensor = self.over_patches(deviation, known, first)
        return spread

    def states(self, x: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        """The state f32[B, F · C, M] of each run and how far it is observed, f32[B, C, M]."""
        patches = patches_of(x)
        mean = self._over_runs(patches.mean(dim=2))
        weight = (2 * self._over_runs(patches_of(observed).mean(dim=2)) - 1).clamp(min=0.0)
        if not self.moving:
            return mean, weight
        variance = self._over_runs((patches * patches).mean(dim=2)) - mean * mean
        steps = torch.abs(x[:, 1:] - x[:, :-1])
        steps = patches_of(torch.cat([steps[:, :1], steps], dim=1)).mean(dim=2)
        spread = torch.log(variance.clamp(min=0.0) + LOG_FLOOR**2) * 0.5
        rough = torch.log(self._over_runs(steps) + LOG_FLOOR)
        return torch.cat([mean, spread, rough], dim=1), weight

    def _over_runs(self, patch_means: Tensor) -> Tensor:
        """f32[B, N, C] → f32[B, C, M], the means of each run."""
        cut: Tensor = self.runs(patch_means.transpose(1, 2).unsqueeze(3))
        return cut.mean(dim=(3, 4))

    def deviation(self, state: Tensor, weight: Tensor) -> Tensor:
        """Root mean square of each channel's whitened features, f32[B, C, M].

        The constant stands on the left of the product, as in ``modalities``: it is not quantized.
        """
        kinds = 3 if self.moving else 1
        z = (state - self.centre[:, None]) * torch.cat([weight] * kinds, dim=1)
        white = torch.matmul(self.whitening, z)
        white = white.reshape(-1, kinds, self.channels, white.shape[2])
        return torch.sqrt(torch.mean(white * white, dim=1))

    def estimate(
        self, fitted: list[tuple[Tensor, Tensor]], held_out: list[tuple[Tensor, Tensor]]
    ) -> None:
        """Centre and whitening from batches of windows (x, observed), the level from others."""
        state, seen = self._collected(fitted)
        centre = np.where(seen, state, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        z = np.where(seen, state - centre, 0.0)
        covariance = z.T @ z / max(len(z), 1)
        spread = np.sqrt(np.diag(covariance) + SPREAD_FLOOR**2)
        values, vectors = np.linalg.eigh(covariance / np.outer(spread, spread))
        root = (vectors / np.sqrt(np.maximum(values, 0) + RIDGE)) @ vectors.T
        # Of a channel that the history never saw nothing is normal, and nothing is not.
        root *= np.outer(seen.any(axis=0), seen.any(axis=0))
        self.centre.copy_(torch.from_numpy(centre))
        self.whitening.copy_(torch.from_numpy(root / spread))
        found = []
        for x, observed in held_out:
            deviation = self.deviation(*self.states(x, observed))
            found.append(torch.sqrt(torch.mean(deviation * deviation, dim=1)).flatten().numpy())
        self.level.fill_(max(conformal_quantile(np.concatenate(found), LEVEL_TAIL), LEVEL_FLOOR))

    def _collected(
        self, batches: list[tuple[Tensor, Tensor]]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """States f64[n, F · C] and which of their features were seen."""
        states, seen = [], []
        for x, observed in batches:
            state, weight = self.states(x, observed)
            kinds = state.shape[1] // self.channels
            states.append(state.transpose(1, 2).flatten(0, 1).numpy())
            seen.append((torch.cat([weight] * kinds, dim=1) > 0).transpose(1, 2).flatten(0, 1))
        return np.concatenate(states).astype(np.float64), torch.cat(seen).numpy()
