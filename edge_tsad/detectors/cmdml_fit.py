"""How CMDML is fitted: clusters of stretches, triplets across modalities, SGD with momentum.

The loss is mean [‖f_a − f_p‖² − ‖f_a − f_n‖² + m]₊ + λ_c mean ‖f − c_y‖² + λ_s Σ_{j≠k} [M −
‖c_j − c_k‖²]₊. What the net does not learn is estimated afterwards, see ``cmdml_history``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge_tsad.decode import decode
from edge_tsad.detectors.base import Progress
from edge_tsad.detectors.behaviours import behaviours
from edge_tsad.detectors.cmdml_history import cluster
from edge_tsad.detectors.cmdml_net import INPUT_BOUND, CMDMLSettings, MetricSpace
from edge_tsad.detectors.missing import bridge
from edge_tsad.detectors.modalities import SAMPLES
from edge_tsad.detectors.triplets import centre_pull, centre_push, hardest_negatives, triplet_loss
from edge_tsad.errors import ConfigError
from edge_tsad.training.distortion import distort
from edge_tsad.training.effort import check_effort
from edge_tsad.training.series import Segment
from edge_tsad.training.windows import WindowSampler, drop_out
from edge_tsad.types import FloatArray, Timing

__all__ = ["FitOptions", "Pool", "divide", "loss_of", "optimise", "start_centres"]

MARGIN = 0.4
PULL, PUSH, APART = 1.0, 0.02, 1.0
"""λ_c, λ_s and M."""

RATE, MOMENTUM, LONGEST_GRADIENT = 0.1, 0.9, 1.0
ROUNDS = 4
"""Draws of a modality and a channel for anchors, positives and negatives in a step."""

NEIGHBOUR = 2
"""A positive begins at most this many points before or after its anchor."""

POOL_NUMBERS = 1 << 23
POOL = 4096
"""Stretches that are clustered and drawn from, bounded in numbers (32 MB) and count."""

LEAST_MEMBERS = 1
"""Stretches of its own, not overlapping ones, that each class should have in the history."""

BATCH_SOURCES = 1024
BATCH_LIMITS = (16, 96)
"""Clean stretches times channels in a step, so that its time does not grow with the channels."""

HELD_OUT = 5
LEAST_FITTED = 3
"""The last 1/5 of the history, at least a window, only sets levels if this many windows of its
last stretch are left to fit on."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """What a caller may choose; 0 ``steps`` leave the net untrained (for comparison).

    ``effort`` times ``steps`` are taken.
    """

    classes: int = 24
    dimension: int = 32
    hidden: int = 32
    steps: int = 300
    effort: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ConfigError(f"cmdml.steps: {self.steps} is negative")
        if self.classes < 1:
            raise ConfigError(f"cmdml.classes: {self.classes} is less than 1")
        check_effort(self.effort, "cmdml")

    @classmethod
    def of(cls, options: dict[str, Any]) -> FitOptions:
        """The options by name.

        Raises:
            ConfigError: one is unknown, of another type or out of range.
        """
        return decode(cls, options, "cmdml", ConfigError)

    @property
    def shape(self) -> tuple[int, int]:
        """What of it makes the net, besides the classes that are found."""
        return self.dimension, self.hidden


def divide(segments: list[Segment], window: int) -> tuple[list[Segment], list[Segment]]:
    """What is fitted on, and what is held out for the levels: a short history serves as both."""
    last = segments[-1]
    held = max(sum(len(part) for part in segments) // HELD_OUT, window)
    cut = len(last) - held
    if cut < LEAST_FITTED * window:
        return segments, segments
    head = Segment(last.values[:cut], last.observed[:cut])
    return [*segments[:-1], head], [Segment(last.values[cut:], last.observed[cut:])]


@dataclass(frozen=True, slots=True)
class Pool:
    """Scaled stretches f32[n, L + 2 · NEIGHBOUR, C], where they are observed, their classes."""

    values: FloatArray
    observed: FloatArray
    labels: npt.NDArray[np.int64]
    period: int

    def described(self, names: Sequence[str]) -> tuple[str, ...]:
        """Each class in words, see `behaviours`."""
        return behaviours(_shapes(self.values), self.labels, names)

    @property
    def classes(self) -> int:
        """How many there are."""
        return int(self.labels.max()) + 1

    @property
    def channels(self) -> int:
        """C."""
        return int(self.values.shape[2])

    @classmethod
    def draw(
        cls,
        segments: list[Segment],
        scale: tuple[FloatArray, FloatArray],
        timing: Timing,
        classes: int,
        rng: np.random.Generator,
    ) -> Pool:
        """Stretches at random places; the classes are clusters of their shapes."""
        offset, spread = scale
        channels = len(offset)
        stretch = CMDMLSettings(channels, timing, 1).stretch
        sampler = WindowSampler(segments, stretch + 2 * NEIGHBOUR)
        numbers = (stretch + 2 * NEIGHBOUR) * channels
        count = int(np.clip(POOL_NUMBERS // numbers, 64, min(POOL, 4 * len(sampler))))
        values, observed = sampler.draw(count, rng)
        values = np.clip((values - offset) / spread, -INPUT_BOUND, INPUT_BOUND) * observed
        shapes = _shapes(values).reshape(count, -1)
        apart = sum(len(part) for part in segments) // stretch
        most = max(1, min(classes, apart // LEAST_MEMBERS))
        return cls(values, observed, cluster(shapes, most, rng), timing.period)


def _shapes(values: FloatArray) -> FloatArray:
    """The stretches in the middle of f32[n, L + 2 · NEIGHBOUR, C] as f32[n, SAMPLES, C]."""
    middle = values[:, NEIGHBOUR:-NEIGHBOUR]
    parts = middle.reshape(len(values), SAMPLES, -1, values.shape[2])
    return np.asarray(parts.mean(axis=2))


def start_centres(space: MetricSpace, pool: Pool) -> None:
    """Each centre begins at the mean of its class under the untrained net."""
    inside = slice(NEIGHBOUR, -NEIGHBOUR)
    with torch.no_grad():
        for label in range(pool.classes):
            member = np.flatnonzero(pool.labels == label)[:64]
            x, observed = _tensor(pool.values[member]), _tensor(pool.observed[member])
            x, observed = x[:, inside], observed[:, inside]
            space.centres[label] = space.embed(bridge(x, observed), observed).consensus.mean((0, 1))


def optimise(
    space: MetricSpace,
    pool: Pool,
    options: FitOptions,
    rng: np.random.Generator,
    progress: Progress | None,
) -> None:
    """SGD with momentum and a cosine schedule over random stretches of ``pool``."""
    steps = max(1, round(options.effort * options.steps)) if options.steps else 0
    least, most = BATCH_LIMITS
    count = int(np.clip(BATCH_SOURCES // pool.channels, least, most))
    optimiser = torch.optim.SGD(space.parameters(), lr=RATE, momentum=MOMENTUM)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    space.train()
    for step in range(1, steps + 1):
        loss = loss_of(space, pool, rng.integers(len(pool.labels), size=count), rng)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(space.parameters(), LONGEST_GRADIENT)
        optimiser.step()
        schedule.step()
        if progress is not None:
            progress(step, steps, loss.item())


def loss_of(
    space: MetricSpace, pool: Pool, chosen: npt.NDArray[np.int64], rng: np.random.Generator
) -> Tensor:
    """The loss of the stretches ``chosen`` of ``pool``.

    Anchors and positives are one stretch, or neighbours, in two modalities and any channels;
    negatives are of another class or distorted, in any modality and channel.
    """
    count, channels = len(chosen), pool.channels
    wide, seen = pool.values[chosen], pool.observed[chosen]
    length = wide.shape[1] - 2 * NEIGHBOUR
    rows = np.arange(count)[:, None]
    at = rng.integers(2 * NEIGHBOUR + 1, size=(count, 1)) + np.arange(length)
    middle = slice(NEIGHBOUR, NEIGHBOUR + length)
    distorted = distort(wide[:, middle], pool.period, rng)
    values = np.concatenate([wide[:, middle], wide[rows, at], distorted.values])
    observed = np.concatenate([seen[:, middle], seen[rows, at], seen[:, middle]])
    observed *= drop_out(observed.shape, rng)
    known = _tensor(observed)
    sources = space.embed(bridge(_tensor(values), known), known).sources[..., 0, :]
    clean, near, odd = torch.split(sources, count)  # f32[count, 5, C, d] each
    labels = torch.from_numpy(pool.labels[chosen])
    other = labels[:, None] != labels[None]
    changed = torch.from_numpy((distorted.changed & (observed[2 * count :] > 0)).any(axis=1))
    losses = []
    for _ in range(ROUNDS):
        (a, i), (p, j), (n, k) = _three_sources(clean.shape[1], channels, rng)
        spoiled = changed[:, k][None].expand(count, count)
        triplets = hardest_negatives(
            clean[:, a, i],
            near[:, p, j],
            torch.cat([clean[:, n, k], odd[:, n, k]]),
            torch.cat([other, spoiled], dim=1),
            MARGIN,
        )
        losses.append(triplet_loss(triplets, MARGIN))
    pull = centre_pull(clean, space.centres[labels])
    return torch.stack(losses).mean() + PULL * pull + PUSH * centre_push(space.centres, APART)


def _three_sources(
    modalities: int, channels: int, rng: np.random.Generator
) -> tuple[tuple[int, int], ...]:
    """Modality and channel of anchor, positive (another modality) and negative."""
    a, p = rng.permutation(modalities)[:2]
    n = rng.integers(modalities)
    i, j, k = rng.integers(channels, size=3)
    return (int(a), int(i)), (int(p), int(j)), (int(n), int(k))


def _tensor(array: FloatArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
