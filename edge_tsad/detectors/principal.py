"""The first principal component inside an exported graph, by a fixed number of products.

``eigh`` and ``svd`` have no counterpart in TFLite. Squaring a matrix s times is power iteration
with 2^s steps from every column at once, and not all columns can be orthogonal to the answer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Principal", "PrincipalDirection"]

SQUARINGS = 7
"""G^128: what is left of the second component where the eigengap is 0.05 is 0.95^128 = 0.0014."""

DEFLATED_SQUARINGS = 2
TIE_BREAK = 1e-3
TINY = 1e-20
"""A lower bound, not a summand: the ONNX exporter takes a summand this small for nothing."""


class Principal(NamedTuple):
    """The first principal component of each matrix.

    ``direction`` f32[..., p] of length 1 and any sign (0 where there is no variance); ``eigengap``
    f32[...], a lower bound of (λ₁ − λ₂)/λ₁; ``variance`` f32[...], Σλ over the rows.
    """

    direction: Tensor
    eigengap: Tensor
    variance: Tensor


class PrincipalDirection(nn.Module):
    """First principal component of each matrix f32[..., w, p] of ``rows`` w, centred over w.

    Works on the Gram matrix G = XXᵀ (w × w): if u is its top eigenvector, Xᵀu is the direction. The
    column of G^(2^s) with the greatest diagonal element is u up to a factor. λ₁ is u's Rayleigh
    quotient; λ₂ ≤ (Σ_{i≥2} λᵢ⁸)^{1/8}, the norm of the deflated matrix squared twice.
    """

    identity: Tensor
    slope: Tensor

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.register_buffer("identity", torch.eye(rows), persistent=False)
        # Equal diagonal elements of opposite columns would cancel; a slope leaves one greatest.
        slope = 1 + TIE_BREAK * torch.arange(rows) / rows
        self.register_buffer("slope", slope, persistent=False)

    def forward(self, x: Tensor) -> Principal:
        """See the class."""
        x = x - x.mean(dim=-2, keepdim=True)
        variance = torch.sum(x * x, dim=(-2, -1))
        x = x * torch.rsqrt(variance.clamp(min=TINY))[..., None, None]
        gram = torch.matmul(x, x.transpose(-1, -2))
        u = self._dominant(gram)
        projected = torch.sum(x * u.unsqueeze(-1), dim=-2)
        first = torch.sum(projected * projected, dim=-1)
        direction = projected * torch.rsqrt(first.clamp(min=TINY)).unsqueeze(-1)
        rest = gram - first[..., None, None] * u.unsqueeze(-1) * u.unsqueeze(-2)
        for _ in range(DEFLATED_SQUARINGS):
            rest = torch.matmul(rest, rest)
        power = torch.sum(rest * rest, dim=(-2, -1))
        for _ in range(DEFLATED_SQUARINGS + 1):
            power = torch.sqrt(power)
        eigengap = ((first - power) / first.clamp(min=TINY)).clamp(0.0, 1.0)
        return Principal(direction, eigengap, variance / self.rows)

    def _dominant(self, gram: Tensor) -> Tensor:
        """The top eigenvector f32[..., w] of ``gram``, length 1 (0 for a zero matrix)."""
        for _ in range(SQUARINGS):
            gram = torch.matmul(gram, gram)
            trace = torch.sum(self._diagonal(gram), dim=-1)
            gram = gram / trace.clamp(min=TINY)[..., None, None]
        diagonal = self._diagonal(gram) * self.slope
        chosen = (diagonal >= diagonal.amax(dim=-1, keepdim=True)).to(gram.dtype)
        u = torch.sum(gram * chosen.unsqueeze(-2), dim=-1)
        return u * torch.rsqrt(torch.sum(u * u, dim=-1, keepdim=True).clamp(min=TINY))

    def _diagonal(self, gram: Tensor) -> Tensor:
        return torch.sum(gram * self.identity, dim=-1)
