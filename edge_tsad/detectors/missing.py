"""Missing points inside a graph: bridged, so that a gap does not look like a step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d

__all__ = ["as_seen", "bridge"]

REACHES = (1, 2, 4, 8, 16, 32)
"""Distances over which a missing point looks for others, in turn; gaps of 126 points close."""


def bridge(x: Tensor, observed: Tensor) -> Tensor:
    """``x`` f32[B, T, C] with missing points set to the mean of known ones around them.

    In each pass a missing point takes the mean of those points at the pass's distance before and
    after it that are known by then, and is known itself from then on. What is still missing at the
    end is 0. The value that a missing point had has no say. ``observed`` is 0 or 1.
    """
    both = torch.stack([x * observed, observed], dim=1).permute(0, 3, 1, 2)
    for reach in REACHES:
        around = _around(both, reach)
        # Divided by how many are known, their number itself becomes 1, or 0 where there is none.
        both = both + around / around[:, :, 1:].clamp(min=1.0) * (1 - both[:, :, 1:])
    return both[:, :, 0].transpose(1, 2)


def as_seen(reference: Tensor, x: Tensor, observed: Tensor) -> Tensor:
    """``reference`` where observed, ``x`` where missing, so that they differ in nothing unseen."""
    return reference * observed + x * (1 - observed)


def _around(x: Tensor, reach: int) -> Tensor:
    """The sums f32[B, C, r, T] of the points ``reach`` before and after; 0 beyond the window.

    One convolution: slices, paddings and a sum would be five operators in each pass.
    """
    channels = x.shape[1]
    taps = torch.tensor([1.0, 0.0, 1.0], device=x.device).expand(channels, 1, 1, 3)
    return conv2d(x, taps, padding=(0, reach), dilation=(1, reach), groups=channels)
