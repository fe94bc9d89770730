"""The short-time spectrum as sums and differences, which every device runtime can run."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["VALUES_PER_POINT", "short_time_spectrum"]

VALUES_PER_POINT = 4
"""Real parts of the bins 0, 1 and 2 and the imaginary part of bin 1; the other two are always 0."""


def short_time_spectrum(x: Tensor) -> Tensor:
    """STFT with ``n_fft`` = 4, hop 1, no window function, edges reflected.

    Frame t covers the points t−2…t+1, as ``torch.stft(center=True)`` has it (whose last frame, one
    beyond the window, is left out). The 4-point DFT matrix holds only 0, ±1 and ±i, so its product
    is written as the sums it is: ``torch.stft`` has no counterpart in TFLite, and no quantizer can
    touch what is not a product.

    Args:
        x: f32[B, T, C], T ≥ 3.

    Returns:
        f32[B, T, 4·C]: per point Re₀, Re₁, Im₁, Re₂ of each channel, times ½ (orthonormal).
    """
    length = x.shape[1]
    padded = torch.cat([x[:, 2:3], x[:, 1:2], x, x[:, length - 2 : length - 1]], dim=1)
    a, b, c, d = (padded[:, shift : shift + length] for shift in range(4))
    even, odd = a + c, b + d
    return torch.cat([even + odd, a - c, d - b, even - odd], dim=2) * 0.5
