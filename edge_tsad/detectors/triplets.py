"""The triplet selection layer and the loss layer of CMDML.

Schroff et al., "FaceNet", CVPR 2015, section 3.2, for the semi-hard rule. All distances are squared
Euclidean ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Triplets", "centre_pull", "centre_push", "hardest_negatives", "triplet_loss"]

FAR = 1e9


class Triplets(NamedTuple):
    """Squared distances f32[n] of anchors to positives and to the negatives chosen for them.

    ``valid`` f32[n] is 0 for an anchor without any negative.
    """

    positive: Tensor
    negative: Tensor
    valid: Tensor


def hardest_negatives(
    anchors: Tensor, positives: Tensor, negatives: Tensor, allowed: Tensor, margin: float
) -> Triplets:
    """For each anchor the nearest semi-hard negative: d(a,p) < d(a,n) < d(a,p) + m.

    Where there is none it is the hardest allowed one, which is the nearest of all.

    Args:
        anchors: f32[n, d].
        positives: f32[n, d], one for each anchor.
        negatives: f32[m, d].
        allowed: bool[n, m], which negatives an anchor may have.
        margin: m.
    """
    near = _squared(anchors, positives)
    distances = _squared(anchors[:, None], negatives[None])
    with torch.no_grad():
        limit = near[:, None]
        semi_hard = allowed & (distances > limit) & (distances < limit + margin)
        pool = torch.where(semi_hard.any(dim=1, keepdim=True), semi_hard, allowed)
        chosen = torch.where(pool, distances, FAR).argmin(dim=1, keepdim=True)
        valid = allowed.any(dim=1).to(distances.dtype)
    return Triplets(near, distances.gather(1, chosen).squeeze(1), valid)


def triplet_loss(triplets: Triplets, margin: float) -> Tensor:
    """The mean [d(a,p) − d(a,n) + m]₊ over the anchors that have a negative."""
    loss = torch.relu(triplets.positive - triplets.negative + margin) * triplets.valid
    return loss.sum() / triplets.valid.sum().clamp(min=1.0)


def centre_pull(sources: Tensor, centres: Tensor) -> Tensor:
    """The mean ‖f − c_y‖² of ``sources`` f32[n, ..., d], ``centres`` f32[n, d] being their c_y."""
    shape = (centres.shape[0], *[1] * (sources.ndim - 2), centres.shape[1])
    return _squared(sources, centres.reshape(shape)).mean()


def centre_push(centres: Tensor, apart: float) -> Tensor:
    """Σ_{j≠k} [M − ‖c_j − c_k‖²]₊ over pairs of ``centres`` f32[K, d]; 0 for K = 1."""
    distances = _squared(centres[:, None], centres[None])
    others = 1 - torch.eye(len(centres))
    return (torch.relu(apart - distances) * others).sum()


def _squared(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum(dim=-1)
