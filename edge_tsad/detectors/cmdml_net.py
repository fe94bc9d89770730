"""The net of CMDML: every modality of every channel in one space, and the classes' centres there.

What the abstract of Li and Yang, arXiv 2509.12540, calls input layer and feature clustering; the
detector around it is in ``cmdml``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from edge_tsad.detectors.modalities import (
    MODALITIES,
    SAMPLES,
    Embedding,
    Stretches,
    cosines_and_sines,
    features_of,
)
from edge_tsad.errors import ConfigError
from edge_tsad.types import Timing

__all__ = [
    "INPUT_BOUND",
    "PATCH",
    "WEIGHT_FLOOR",
    "CMDMLSettings",
    "Embedded",
    "MetricSpace",
    "patches_of",
]

PATCH = 8
"""Points in a patch; one stretch and one direction end at each."""

INPUT_BOUND = 16.0
"""Scaled inputs are cut at ± this; normal data lie within ± 8 (see ``cmdml_history``)."""

MOST_LAGS = 128
"""Coordinates of a lag vector: at most 32 samples of each channel, and 4 even of very many."""

WEIGHT_FLOOR = 1e-6

SOFTNESS = 0.02
"""Squared distance by which a centre must be nearer than another to count e times as much: centres
that are equally near are both counted, so that a score does not jump where rounding decides."""


@dataclass(frozen=True, slots=True)
class CMDMLSettings:
    """The shape of the net: K ``classes``, ``dimension`` d of the space, ``hidden`` width.

    ``behaviours`` says in words what each class is; nothing is computed from them.
    """

    channels: int
    timing: Timing
    classes: int
    dimension: int = 32
    hidden: int = 32
    behaviours: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in ("channels", "classes", "hidden"):
            if getattr(self, field) < 1:
                raise ConfigError(f"cmdml.{field}: {getattr(self, field)} is less than 1")
        if self.dimension < 3:
            raise ConfigError(f"cmdml.dimension: {self.dimension} is less than 3")
        if self.timing.window % PATCH or self.timing.window < 2 * SAMPLES:
            raise ConfigError(
                f"timing.window: {self.timing.window} is not a multiple of {PATCH} of at least "
                f"{2 * SAMPLES}"
            )

    @property
    def stretch(self) -> int:
        """Points in a stretch: the power of two next to a quarter of the window, 32…256."""
        power = 1
        while power < 8 and (SAMPLES * power) ** 2 * 2 <= (self.timing.window / 4) ** 2:
            power *= 2
        return SAMPLES * power

    @property
    def lags(self) -> int:
        """Samples of each channel in a lag vector: 32, 16, 8 or 4."""
        lags = SAMPLES
        while lags > 4 and lags * self.channels > MOST_LAGS:
            lags //= 2
        return lags


class Embedded(NamedTuple):
    """The M stretches that end at the patches from the first full one on.

    ``sources`` f32[B, 5, C, M, d], each of length 1; ``weight`` f32[B, C, M], how far a channel is
    observed; ``consensus`` f32[B, M, d], the weighted mean of the sources; ``lags`` f32[B, M, p],
    the samples of all channels.
    """

    sources: Tensor
    weight: Tensor
    consensus: Tensor
    lags: Tensor


class MetricSpace(nn.Module):
    """Embeddings into R^d, unit length, and the K centres of the classes there."""

    waves: Tensor

    def __init__(self, settings: CMDMLSettings) -> None:
        super().__init__()
        self._settings = settings
        d, c = settings.dimension, settings.channels
        self.embeddings = nn.ModuleList(
            Embedding(size, c, settings.hidden, d) for size in MODALITIES.values()
        )
        self.centres = nn.Parameter(torch.randn(settings.classes, d) * d**-0.5)
        self.register_buffer("waves", cosines_and_sines(), persistent=False)
        self.stretches = Stretches(settings.timing.window // PATCH, settings.stretch // PATCH)

    def embed(self, x: Tensor, observed: Tensor) -> Embedded:
        """Every modality of every channel of every stretch, in the shared space.

        ``x`` and ``observed`` f32[B, T', C], T' = T, or one stretch in training.
        """
        cut, lags = self._cut(x.shape[1]), self._settings.lags
        per_patch = PATCH * SAMPLES // self._settings.stretch
        patches = patches_of(x)
        samples = patches.reshape(*patches.shape[:2], per_patch, -1, x.shape[2]).mean(dim=3)
        samples = cut(samples.permute(0, 3, 1, 2)).flatten(3)
        steps = torch.abs(x[:, 1:] - x[:, :-1])
        steps = patches_of(torch.cat([steps[:, :1], steps], dim=1)).mean(dim=2)
        roughness = cut(steps.transpose(1, 2).unsqueeze(3)).mean(dim=3)
        kinds = features_of(samples, roughness, self.waves)
        nets = zip(self.embeddings, kinds, strict=True)
        sources = torch.stack([net(kind) for net, kind in nets], dim=1)
        covered = patches_of(observed).mean(dim=2).transpose(1, 2).unsqueeze(3)
        weight = (2 * cut(covered).mean(dim=(3, 4)) - 1).clamp(min=0.0)
        total = torch.sum(sources.mean(dim=1) * weight.unsqueeze(3), dim=1)
        consensus = total / weight.sum(dim=1).unsqueeze(2).clamp(min=WEIGHT_FLOOR)
        coarse = samples.reshape(*samples.shape[:3], lags, -1).mean(dim=4)
        return Embedded(sources, weight, consensus, coarse.transpose(1, 2).flatten(2))

    def _cut(self, points: int) -> Stretches:
        width = self.stretches.length
        return (
            self.stretches
            if points == self._settings.timing.window
            else Stretches(points // PATCH, width)
        )

    def centre_distances(self, consensus: Tensor) -> Tensor:
        """Mean squared Euclidean distance of the sources to each centre, f32[B, M, K].

        The sources have length 1, so that the mean over them is 1 + ‖c‖² − 2 cᵀ(their mean).
        """
        product = torch.sum(consensus.unsqueeze(2) * self.centres, dim=3)
        return 1 + torch.sum(self.centres * self.centres, dim=1) - 2 * product

    def nearest(self, consensus: Tensor) -> Tensor:
        """Shares of the classes, near 1 for that of the nearest centre; f32[B, M, K], sum 1."""
        return torch.softmax(self.centre_distances(consensus) * (-1 / SOFTNESS), dim=2)

    def source_distances(self, embedded: Embedded, nearest: Tensor) -> Tensor:
        """Squared distance of each source to the centre of its stretch's class, f32[B, 5, C, M]."""
        centre = torch.sum(nearest.unsqueeze(3) * self.centres, dim=2)
        apart = embedded.sources - centre[:, None, None]
        return torch.sum(apart * apart, dim=4)


def patches_of(x: Tensor) -> Tensor:
    """f32[B, T, c] → f32[B, N, P, c]."""
    return x.reshape(-1, x.shape[1] // PATCH, PATCH, x.shape[2])
