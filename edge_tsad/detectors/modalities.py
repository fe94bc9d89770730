"""The input layer of CMDML: one stretch seen as five kinds of features, each with its own net.

Every stretch is brought to ``SAMPLES`` samples (means of 1, 2, 4 or 8 points), so that the nets
have one shape whatever the period.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

__all__ = [
    "MODALITIES",
    "SAMPLES",
    "Embedding",
    "Stretches",
    "cosines_and_sines",
    "features_of",
    "unit",
]

SAMPLES = 32
BINS = 16
STATISTICS = 6
TOKEN, TOKEN_STEP, TOKEN_WIDTH = 8, 4, 12
"""The 1-D convolution over samples or bins: kernel, stride, filters."""

MODALITIES = {
    "shape": SAMPLES,
    "normalised": SAMPLES,
    "difference": SAMPLES,
    "spectrum": BINS,
    "statistics": STATISTICS,
}
"""Kinds of features, and how many numbers each has of a stretch of one channel."""

FLAT = 0.05
"""Standard deviation (scaled) below which a stretch is flat: its noise is not blown up."""

LENGTH_FLOOR = 1e-8


def unit(x: Tensor) -> Tensor:
    """``x`` f32[..., d] at length 1."""
    return x * torch.rsqrt(torch.sum(x * x, dim=-1, keepdim=True).clamp(min=LENGTH_FLOOR))


class Stretches(nn.Module):
    """Cuts sequences of patches into overlapping runs of ``length`` patches, one ending at each.

    The places are a constant, so that this is one gather in either format.
    """

    places: Tensor

    def __init__(self, count: int, length: int) -> None:
        super().__init__()
        self.count, self.length = count - length + 1, length
        places = torch.arange(self.count)[:, None] + torch.arange(length)[None, :]
        self.register_buffer("places", places.flatten().to(torch.int32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """f32[B, C, N, k] → f32[B, C, N − length + 1, length, k]."""
        taken = torch.index_select(x, 2, self.places)
        return taken.reshape(-1, x.shape[1], self.count, self.length, x.shape[3])


def features_of(samples: Tensor, roughness: Tensor, waves: Tensor) -> list[Tensor]:
    """Each modality of each stretch, in the order of ``MODALITIES``.

    Args:
        samples: f32[..., 32], scaled.
        roughness: f32[..., 1], mean |first difference| of the stretch's points before they were
            averaged to samples, which averaging removes.
        waves: f32[32, 32], the constant of ``cosines_and_sines``.

    Returns:
        f32[..., 32] shape, normalised, difference; f32[..., 16] log magnitudes; f32[..., 6]
        standard deviation, range, maximum, minimum, mean, roughness.
    """
    mean = samples.mean(dim=-1, keepdim=True)
    centred = samples - mean
    deviation = torch.sqrt(torch.mean(centred * centred, dim=-1, keepdim=True) + FLAT**2)
    difference = samples[..., 1:] - samples[..., :-1]
    steps = torch.sqrt(torch.mean(difference * difference, dim=-1, keepdim=True) + FLAT**2)
    top, bottom = samples.amax(dim=-1, keepdim=True), samples.amin(dim=-1, keepdim=True)
    statistics = [deviation, top - bottom, top, bottom, mean, 4 * roughness]
    return [
        samples,
        centred / deviation,
        torch.cat([difference[..., :1], difference], dim=-1) / steps,
        _log_magnitudes(centred, waves),
        torch.cat(statistics, dim=-1),
    ]


def cosines_and_sines() -> Tensor:
    """The DFT of 32 samples at the bins 1…16 as a matrix f32[32, 32], cosines first."""
    angle = (2 * torch.pi / SAMPLES) * torch.outer(
        torch.arange(1, BINS + 1, dtype=torch.float64), torch.arange(SAMPLES, dtype=torch.float64)
    )
    return (torch.cat([torch.cos(angle), torch.sin(angle)]) / math.sqrt(SAMPLES)).float()


def _log_magnitudes(x: Tensor, waves: Tensor) -> Tensor:
    """log(1 + |DFT|²) f32[..., 16] of f32[..., 32].

    The constant stands on the left of the product: quantizers take the products whose right side is
    a constant, and int8 on a magnitude is silently wrong.
    """
    columns = x.reshape(-1, SAMPLES, 1)
    parts = torch.matmul(waves, columns).reshape(*x.shape[:-1], 2 * BINS)
    real, imaginary = parts[..., :BINS], parts[..., BINS:]
    power = torch.square(real) + torch.square(imaginary)
    return power.add(1).log()


class Embedding(nn.Module):
    """One modality of every channel into the shared space: f32[B, C, M, size] → f32[B, C, M, d].

    A 1-D convolution (an MLP for the statistics), ReLU, and two linear layers; the channels share
    the weights but for a bias of their own in the hidden layer. The result has length 1.
    """

    def __init__(self, size: int, channels: int, hidden: int, dimension: int) -> None:
        super().__init__()
        self.convolution: nn.Linear | None = None
        if size > STATISTICS:
            self.tokens = (size - TOKEN) // TOKEN_STEP + 1
            self.convolution = nn.Linear(TOKEN, TOKEN_WIDTH)
            size = self.tokens * TOKEN_WIDTH
        self.hidden = nn.Linear(size, hidden, bias=False)
        self.source = nn.Parameter(torch.randn(channels, 1, hidden) * 0.5)
        self.out = nn.Linear(hidden, dimension)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.convolution is not None:
            half = x.reshape(*x.shape[:-1], -1, TOKEN_STEP)
            tokens = torch.cat([half[..., :-1, :], half[..., 1:, :]], dim=-1)
            x = torch.relu(self.convolution(tokens)).flatten(-2)
        return unit(cast(Tensor, self.out(torch.relu(self.hidden(x) + self.source))))
