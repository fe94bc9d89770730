"""How CoAD is fitted: clean windows and their distorted copies, two classifications, one MSE.

Tang et al., arXiv 2605.26193, with a one-cycle learning rate instead of 300 epochs, and with
points, stretches and channels left out at random so that missing data is nothing new later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from edge_tsad.decode import decode
from edge_tsad.detectors.base import Progress
from edge_tsad.detectors.encoders import default_width
from edge_tsad.detectors.missing import as_seen, bridge
from edge_tsad.errors import ConfigError
from edge_tsad.training.distortion import distort
from edge_tsad.training.effort import check_effort
from edge_tsad.training.series import Segment
from edge_tsad.training.windows import WindowSampler, drop_out

if TYPE_CHECKING:
    from edge_tsad.detectors.coad import CoAD, Judgement

__all__ = ["FitOptions", "optimise", "usual_terms"]

PEAK_RATE = 4e-3
POSITIVE_WEIGHT = 2.0
RECONSTRUCTION_WEIGHT = 10.0

BATCH_POINTS = 32 * 616
"""Points of clean windows in a step: 32 windows of the median length, fewer of longer ones, so
that the time a fit takes does not grow with the period."""

BATCH_LIMITS = (8, 64)

USUAL_QUANTILE = 0.99
USUAL_WINDOWS = 256
"""What A_c and a channel's |x − x_r| usually are: this quantile over at most so many windows."""

USUAL_NUMBERS = 1 << 19
"""Numbers of windows that are reconstructed at a time, for memory's sake."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """What a caller may choose; ``batch`` counts clean windows, None = by ``BATCH_POINTS``.

    ``width`` None = the encoder's usual one.
    ``effort`` times ``steps`` are taken.
    """

    encoder: str = "conv"
    width: int | None = None
    reconstruction_width: int = 24
    steps: int = 400
    batch: int | None = None
    effort: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"coad.steps: {self.steps} is less than 1")
        default_width(self.encoder)
        check_effort(self.effort, "coad")
        if self.batch is not None and self.batch < 2:
            raise ConfigError(f"coad.batch: {self.batch} is less than 2")

    @classmethod
    def of(cls, options: dict[str, Any]) -> FitOptions:
        """The options by name.

        Raises:
            ConfigError: one is unknown, of another type or out of range.
        """
        return decode(cls, options, "coad", ConfigError)

    @property
    def shape(self) -> tuple[str, int, int]:
        """What of it makes the net."""
        width = default_width(self.encoder) if self.width is None else self.width
        return self.encoder, width, self.reconstruction_width

    def windows(self, length: int) -> int:
        """Clean windows of ``length`` points in a step."""
        least, most = BATCH_LIMITS
        return self.batch or int(np.clip(round(BATCH_POINTS / length), least, most))


@dataclass(frozen=True, slots=True)
class Batch:
    """Clean windows followed by their distorted copies, scaled; f32[B, T, C] each.

    ``x`` is seen where ``observed``; the reconstruction answers for ``target`` where ``known``,
    which is more: it learns to fill what was left out. ``changed`` is 1 where ``x`` is distorted
    and can be seen to be.
    """

    x: Tensor
    observed: Tensor
    target: Tensor
    known: Tensor
    changed: Tensor

    @classmethod
    def draw(
        cls, sampler: WindowSampler, count: int, period: int, rng: np.random.Generator
    ) -> Batch:
        """``count`` windows at random offsets, distorted over up to a ``period``."""
        clean, known = sampler.draw(count, rng)
        distorted = distort(clean, period, rng)
        twice = np.concatenate([known, known])
        observed = twice * drop_out(twice.shape, rng)
        changed = np.concatenate([np.zeros_like(clean), distorted.changed]) * observed
        arrays = (
            np.concatenate([clean, distorted.values]),
            observed,
            np.concatenate([clean, clean]),
            twice,
            changed,
        )
        return cls(*(torch.from_numpy(array.astype(np.float32)) for array in arrays))


def optimise(
    net: CoAD,
    segments: list[Segment],
    options: FitOptions,
    rng: np.random.Generator,
    progress: Progress | None,
) -> None:
    """Fit ``net``, whose scale is set, to ``segments``."""
    timing = net.timing
    scaled = [
        Segment(net.rescale(torch.from_numpy(part.values)).numpy(), part.observed)
        for part in segments
    ]
    net.bank.fit(scaled, rng)
    sampler, count = WindowSampler(scaled, timing.window), options.windows(timing.window)
    steps = max(2, round(options.effort * options.steps))
    optimiser = torch.optim.Adam(net.parameters(), lr=PEAK_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=PEAK_RATE, total_steps=steps)
    net.train()
    for step in range(1, steps + 1):
        loss = _loss(net, Batch.draw(sampler, count, timing.period, rng))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        if progress is not None:
            progress(step, steps, loss.item())


@torch.inference_mode()
def usual_terms(net: CoAD, segments: list[Segment]) -> tuple[Tensor, Tensor]:
    """What A_c f32[] and |x − x_r| f32[C] of fitted ``net`` exceed in a hundredth of history."""
    sampler = WindowSampler(segments, net.timing.window)
    values, observed = sampler.spread(USUAL_WINDOWS)
    count = max(1, USUAL_NUMBERS // values[0].size)
    arrays = [torch.split(torch.from_numpy(array), count) for array in (values, observed)]
    terms = [net.terms(*part) for part in zip(*arrays, strict=True)]
    probability = torch.cat([one.probability for one in terms])
    residual = torch.cat([one.residual for one in terms])
    seen = torch.from_numpy(observed) > 0
    usual = [_usual(residual[:, :, i][seen[:, :, i]]) for i in range(net.channels)]
    return torch.tensor(_usual(probability[seen.any(dim=2)])), torch.tensor(usual)


def _usual(values: Tensor) -> float:
    return float(np.quantile(values.numpy(), USUAL_QUANTILE)) if len(values) else 0.0


def _loss(net: CoAD, batch: Batch) -> Tensor:
    """The paper's training objective: both classifications and λ times the reconstruction."""
    x, coverage = bridge(batch.x, batch.observed), net.coverage(batch.observed)
    has_data = net.has_data(coverage)
    labels = batch.changed.reshape(*has_data.shape, -1).amax(dim=2)
    first = net.judge(x, coverage)
    mask = net.mask(torch.sigmoid(first.fused), has_data)
    reference = net.reconstruct(x, coverage, mask)
    seen = as_seen(reference, x, batch.observed)
    second = net.compare(first, net.judge(seen, coverage))
    return (
        _classification(first, labels, has_data)
        + _classification(second, labels, has_data)
        + RECONSTRUCTION_WEIGHT * _balanced_error(reference, batch, labels)
    )


def _classification(judged: Judgement, labels: Tensor, has_data: Tensor) -> Tensor:
    """The error of the fused logits and, as much again, of each branch's own.

    By the maximum alone the branch that leads at first takes all gradients, and the other one
    never learns to tell anything.
    """
    logits = torch.cat([judged.fused.expand_as(judged.logits), judged.logits])
    return 2 * binary_cross_entropy_with_logits(
        logits,
        labels.expand_as(logits),
        has_data.expand_as(logits),
        pos_weight=torch.tensor(POSITIVE_WEIGHT),
    )


def _balanced_error(reference: Tensor, batch: Batch, labels: Tensor) -> Tensor:
    """The mean squared error where both kinds of patches, distorted and not, count one half."""
    patches = (*labels.shape, -1)
    error = ((reference - batch.target).square() * batch.known).reshape(patches).sum(dim=2)
    known = batch.known.reshape(patches).sum(dim=2)
    parts = [
        (error * chosen).sum() / (known * chosen).sum().clamp(min=1.0)
        for chosen in (labels, 1 - labels)
    ]
    return 0.5 * (parts[0] + parts[1])
