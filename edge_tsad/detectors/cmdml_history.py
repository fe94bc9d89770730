"""What CMDML estimates from its history besides the weights: scales, classes, directions, levels.

All of it is estimated once, on the workstation; nothing is updated on a device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge_tsad.detectors.cmdml_net import INPUT_BOUND
from edge_tsad.detectors.directions import conformal_quantile, fit_axes, mixture_quantile
from edge_tsad.detectors.missing import bridge
from edge_tsad.detectors.modalities import MODALITIES
from edge_tsad.training.scaling import history_scale
from edge_tsad.training.series import Segment
from edge_tsad.training.windows import WindowSampler
from edge_tsad.types import FloatArray

if TYPE_CHECKING:
    from edge_tsad.detectors.cmdml import CMDML

__all__ = ["cluster", "estimate", "robust_scale"]

TAIL = 0.01
"""α: the share of normal directions and distances beyond their level."""

AMPLITUDE_TAIL = 0.001
"""Likewise of amplitudes, of which there are more, and which only count beyond their level."""

MAD_TO_DEVIATION = 1.4826
SMALLEST_SHARE = 1 / INPUT_BOUND
"""Least scale as a share of the range, so that normal data stay within half of the input's bound:
the MAD of a channel that mostly rests says nothing about its swings."""

ROUNDS = 12
"""Rounds of k-means."""

DESCRIBED_SOURCES = 400_000
"""Stretches times channels that are embedded to estimate the rest from."""

LEAST_DIRECTIONS = 8
"""Directions a class must have had for a component of its own."""

NEVER = 1e9

DISTANCE_FLOOR, DIRECTION_FLOOR = 0.02, 0.002
"""Levels are not below these: the windows of a strictly periodic history are all alike, and
rounding must not count as a deviation."""


def robust_scale(segments: list[Segment]) -> tuple[FloatArray, FloatArray]:
    """Median and robust standard deviation f32[C] of what was observed in each channel."""
    ranges = history_scale(segments)
    values = np.concatenate([part.values for part in segments]).astype(np.float64)
    observed = np.concatenate([part.observed for part in segments]) > 0
    middle, spread = ranges.offset.copy(), ranges.scale * SMALLEST_SHARE
    for channel in range(values.shape[1]):
        known = values[observed[:, channel], channel]
        if len(known):
            median = np.median(known)
            mad = np.median(np.abs(known - median))
            middle[channel] = median
            spread[channel] = max(spread[channel], MAD_TO_DEVIATION * mad)
    return middle, spread


def cluster(features: FloatArray, classes: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """k-means of ``features`` f32[n, D], n ≥ 1: labels i64[n] from 0 without gaps.

    At most ``classes``; fewer where stretches are alike, one where all are.
    """
    centres = features[rng.integers(len(features), size=1)]
    while len(centres) < classes:  # k-means++
        nearest = _squared_distances(features, centres).min(axis=1)
        if nearest.max() <= 1e-6 * features.shape[1]:
            break
        chosen = rng.choice(len(features), p=nearest / nearest.sum())
        centres = np.concatenate([centres, features[chosen : chosen + 1]])
    labels = np.zeros(len(features), np.int64)
    for _ in range(ROUNDS):
        labels = _squared_distances(features, centres).argmin(axis=1)
        present = np.unique(labels)
        centres = np.stack([features[labels == label].mean(axis=0) for label in present])
    return np.unique(labels, return_inverse=True)[1]


def _squared_distances(features: FloatArray, centres: FloatArray) -> npt.NDArray[np.float64]:
    product = features @ centres.T
    lengths = np.sum(features**2, axis=1)[:, None] + np.sum(centres**2, axis=1)
    return np.asarray(np.maximum(lengths - 2 * product, 0.0), np.float64)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the net says of windows, where they were observed.

    ``vectors`` f32[n, p], the ``classes`` i64[n] they end in, how far they are ``sure`` f32[n] and
    the ``variance`` f32[n] of their runs; ``distances`` f32[5, C, m], NaN where a channel was
    hardly seen; ``amplitude`` f32[m] of each channel.
    """

    vectors: FloatArray
    classes: npt.NDArray[np.int64]
    sure: FloatArray
    variance: FloatArray
    distances: FloatArray
    amplitude: list[FloatArray]


def estimate(net: CMDML, fitted: list[Segment], held_out: list[Segment]) -> None:
    """Fill the buffers of ``net``: the components from ``fitted``, the levels from ``held_out``.

    The segments are in engineering units and hold at least one window of T points in each list.
    """
    with torch.no_grad():
        known = _look(net, fitted)
        if len(known.variance):
            net.motion.fill_(max(float(np.median(known.variance)), 1e-9))
            known = _look(net, fitted)
        shares, kappas = _components(net, known)
        fresh = _look(net, held_out)
        _levels(net, fresh, shares, kappas)
        if net.states:
            batches = list(_shown(net, fitted)), list(_shown(net, held_out))
            for state in net.states:
                state.estimate(*batches)


def _components(net: CMDML, seen: _Seen) -> tuple[list[float], list[float]]:
    """One vMF component per class with enough directions; its share and κ."""
    shares, kappas = [], []
    net.means.zero_()
    for label in range(len(net.means)):
        member = (seen.classes == label) & (seen.sure > 0)
        if member.sum() >= LEAST_DIRECTIONS:
            fit = fit_axes(seen.vectors[member], seen.sure[member])
            net.means[label] = torch.from_numpy(fit.mean.astype(np.float32))
            shares.append(float(seen.sure[member].sum()))
            kappas.append(fit.kappa)
    return shares, kappas


def _levels(net: CMDML, seen: _Seen, shares: list[float], kappas: list[float]) -> None:
    sure = seen.sure > 0
    if shares and sure.any():
        cosine = mixture_quantile(kappas, shares, net.means.shape[1], TAIL)
        measure = 1 - net.alignment(torch.from_numpy(seen.vectors[sure])[None])[0].numpy()
        level = max(1 - cosine, conformal_quantile(measure, TAIL), DIRECTION_FLOOR)
        net.direction_level.fill_(level)
    else:
        # A history that stands still has no directions; then none is ever sure.
        net.motion.fill_(NEVER)
    for modality in range(len(MODALITIES)):
        for channel in range(net.channels):
            values = seen.distances[modality, channel]
            values = values[np.isfinite(values)]
            if len(values):
                level = max(conformal_quantile(values, TAIL), DISTANCE_FLOOR)
                net.distance_level[modality, channel] = level
    for channel, amplitude in enumerate(seen.amplitude):
        if len(amplitude):
            net.amplitude_level[channel] = max(conformal_quantile(amplitude, AMPLITUDE_TAIL), 1.0)


def _look(net: CMDML, segments: list[Segment]) -> _Seen:
    parts = [_describe(net, x, observed) for x, observed in _shown(net, segments)]
    amplitude = []
    for channel in range(net.channels):
        known = np.concatenate([p.values[p.observed[:, channel] > 0, channel] for p in segments])
        scaled = (known - net.offset[channel].item()) / net.scale[channel].item()
        amplitude.append(np.minimum(np.abs(scaled), INPUT_BOUND).astype(np.float32))
    joined = [np.concatenate(arrays) for arrays in zip(*(p[:4] for p in parts), strict=True)]
    distances = np.concatenate([p[4] for p in parts], axis=2)
    vectors, classes, sure, variance = joined
    return _Seen(vectors, classes, sure, variance, distances, amplitude)


def _shown(net: CMDML, segments: list[Segment]) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of windows all over the segments: x scaled and bridged, observed."""
    per_window = net.space.stretches.count * net.channels
    sampler = WindowSampler(segments, net.timing.window)
    values, observed = sampler.spread(int(np.clip(DESCRIBED_SOURCES // per_window, 16, 512)))
    step = max(1, (1 << 15) // per_window)
    for i in range(0, len(values), step):
        known = torch.from_numpy(observed[i : i + step])
        yield bridge(net.rescale(torch.from_numpy(values[i : i + step])), known), known


def _describe(net: CMDML, x: Tensor, observed: Tensor) -> tuple[npt.NDArray[np.float32], ...]:
    embedded = net.space.embed(x, observed)
    nearest = net.space.nearest(embedded.consensus)
    distances = net.space.source_distances(embedded, nearest)
    distances = torch.where(embedded.weight.unsqueeze(1) > 0.5, distances, torch.nan)
    found = net.directions(embedded)
    seen = (found.weight > 0.5).flatten()
    classes = nearest[:, net.space.stretches.length - 1 :].argmax(dim=2).flatten()
    sure = net.certainty(found).flatten()
    return (
        found.vector.flatten(0, 1)[seen].numpy(),
        classes[seen].numpy(),
        sure[seen].numpy(),
        found.variance.flatten()[seen].numpy(),
        distances.permute(1, 2, 0, 3).flatten(2).numpy(),
    )
