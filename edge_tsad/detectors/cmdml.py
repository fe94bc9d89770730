"""CMDML: cross-modal deep metric learning, with directions as the measure of what is normal.

A reconstruction from the abstract of Li and Yang, arXiv 2509.12540, which is all that is known of
it; ``docs/cmdml.md`` says what the abstract fixes and what was filled in. How it is fitted is in
``cmdml_fit``.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from edge_tsad.detectors.base import Detector, Progress
from edge_tsad.detectors.cmdml_fit import FitOptions, Pool, divide, optimise, start_centres
from edge_tsad.detectors.cmdml_history import estimate, robust_scale
from edge_tsad.detectors.cmdml_net import (
    INPUT_BOUND,
    PATCH,
    CMDMLSettings,
    Embedded,
    MetricSpace,
    patches_of,
)
from edge_tsad.detectors.joint_state import JointState, OverPatches
from edge_tsad.detectors.missing import bridge
from edge_tsad.detectors.modalities import MODALITIES, Stretches
from edge_tsad.detectors.principal import PrincipalDirection
from edge_tsad.errors import ConfigError
from edge_tsad.training.series import Series
from edge_tsad.training.windows import segments_to_fit
from edge_tsad.types import Timing

__all__ = ["CMDML", "ONE_CHANNEL", "SEVERAL_CHANNELS", "Directions", "Fusion"]

EIGENGAP = (0.05, 0.15)
"""Below the first a direction counts nothing, from the second on fully: no jump at a limit that
rounding could cross."""

STILL = (0.02, 0.1)
"""Likewise for the variance of a trajectory, as shares of its median in the history."""


class Fusion(NamedTuple):
    """Weights of the parts of a score."""

    direction: float = 0.0
    distance: float = 0.0
    amplitude: float = 0.0
    patch_state: float = 0.0
    state: float = 0.0


ONE_CHANNEL = Fusion(direction=0.3, distance=1.0, amplitude=1.0)
SEVERAL_CHANNELS = Fusion(direction=0.15, distance=0.05, amplitude=0.05, patch_state=0.5, state=1.0)
"""Chosen on a few series of SKAB, TEP and ASD, which benchmarks/cmdml.md names and leaves out.
Of one channel the modalities see all that a state could say."""

STATE_PATCHES = 4

_SHARE_FLOOR = 1e-6


class Directions(NamedTuple):
    """First principal components of the Q runs of w lag vectors, one ending at each patch.

    ``vector`` f32[B, Q, p]; ``gap`` f32[B, Q], a lower bound of the eigengap; ``variance`` and
    ``weight`` f32[B, Q], how far all of the run is observed.
    """

    vector: Tensor
    gap: Tensor
    variance: Tensor
    weight: Tensor


class CMDML(Detector):
    """The net and the detector; ``forward`` is inference, ``embed`` and the like its parts.

    N = T / P patches, w = patches in a stretch, M = N − w + 1, Q = M − w + 1. Arrays named ``x``
    are scaled: 0 is a channel's median, 1 its robust standard deviation. All that is estimated from
    the history is a buffer; a level is what its kind of deviation rarely exceeds.
    """

    name: ClassVar[str] = "cmdml"
    patch: ClassVar[int] = PATCH
    offset: Tensor
    scale: Tensor
    means: Tensor
    motion: Tensor
    direction_level: Tensor
    distance_level: Tensor
    amplitude_level: Tensor
    labels: Tensor

    def __init__(self, settings: CMDMLSettings) -> None:
        super().__init__()
        self._settings = settings
        self.timing, self.channels = settings.timing, settings.channels
        patches, width = settings.timing.window // PATCH, settings.stretch // PATCH
        k, c = settings.classes, settings.channels
        self.space = MetricSpace(settings)
        for name, value in {
            "offset": torch.zeros(c),
            "scale": torch.ones(c),
            "means": torch.zeros(k, c * settings.lags),
            "motion": torch.ones(1),
            "direction_level": torch.ones(1),
            "distance_level": torch.ones(len(MODALITIES), c, 1),
            "amplitude_level": torch.ones(c),
        }.items():
            self.register_buffer(name, value)
        self.register_buffer("labels", torch.arange(k, dtype=torch.float32), persistent=False)
        self.runs = Stretches(self.space.stretches.count, width)
        self.over_patches = OverPatches(patches, width)
        self.principal = PrincipalDirection(width)
        lengths = (1, STATE_PATCHES) if c > 1 else ()
        self.states = [JointState(c, patches, n, moving=n > 1) for n in lengths]
        self.joint = nn.ModuleList(self.states)
        # A benchmark shows each part alone.
        self.fusion = SEVERAL_CHANNELS if c > 1 else ONE_CHANNEL

    def forward(self, window: Tensor, observed: Tensor) -> dict[str, Tensor]:
        """Scores a batch; the arrays are those of the table in ``edge_tsad.types``.

        ``score`` is the sum of z (1/q − 1), D, [A − 1]₊ and, of several channels, S₁ and S₄ by the
        weights of ``fusion``: the turn of the direction, the distance to the nearest class, the
        amplitude and the state of all channels over one and four patches, each in units of what
        history rarely exceeds. A patch has the mean of the values of the stretches that cover it.
        ``channel_score`` divides the score in proportion to what the channels have in all parts but
        the direction, which belongs to all. The details are ``class`` and ``turn_deg``, see
        `details`.
        """
        x = bridge(self.rescale(window), observed)
        embedded = self.space.embed(x, observed)
        width = self.runs.length
        nearest = self.space.nearest(embedded.consensus)
        distance = self.distance(embedded, nearest)
        distance = self.over_patches(distance, embedded.weight, width - 1)
        found = self.directions(embedded)
        turned = self.turn(found) * self.certainty(found)
        turned = self.over_patches(turned.unsqueeze(1), found.weight.unsqueeze(1), 2 * width - 2)
        has_data = (patches_of(observed).amax(dim=(2, 3)) > 0).to(x.dtype).unsqueeze(1)
        parts = [_over_points(distance * has_data)]
        parts += [torch.relu(torch.abs(x) / self.amplitude_level - 1) * observed]
        parts += [_over_points(joint(x, observed) * has_data) for joint in self.states]
        score = self.fusion.direction * _over_points(turned * has_data)[:, :, 0]
        weight = torch.full_like(x, _SHARE_FLOOR)
        for factor, part in zip(self.fusion[1:], parts, strict=False):
            score = score + factor * _root_mean_square(part)
            weight = weight + factor * part
        share = weight / torch.sum(weight, dim=2, keepdim=True)
        outputs = {"score": score, "channel_score": score.unsqueeze(2) * share}
        return outputs | self.details(embedded, nearest, found)

    def details(self, embedded: Embedded, nearest: Tensor, found: Directions) -> dict[str, Tensor]:
        """What only this detector knows of a point, f32[B, T] each; −1 where it cannot be told.

        ``class``: that of the stretch which ends with the point's patch, 0…K−1. ``turn_deg``: the
        angle between the direction there and the nearest mean direction, degrees in 0…90.
        """
        known = (embedded.weight.amax(dim=1) > 0).to(nearest.dtype)
        # The highest of the labels whose share is the greatest: one label even where two tie.
        chosen = (nearest >= nearest.amax(dim=2, keepdim=True)).to(nearest.dtype)
        label = torch.amax(chosen * self.labels, dim=2)
        sure = (found.weight * self.certainty(found) > 0).to(nearest.dtype)
        angle = _degrees(self.alignment(found.vector))
        return {"class": self._at_ends(label, known), "turn_deg": self._at_ends(angle, sure)}

    def _at_ends(self, values: Tensor, known: Tensor) -> Tensor:
        """Values f32[B, j] of the last patches at their points, f32[B, T]; −1 where not known."""
        values = values * known - (1 - known)
        missing = self.timing.window // PATCH - values.shape[1]
        unknown = torch.full_like(values[:, :1], -1.0).expand(-1, missing)
        values = torch.cat([unknown, values], dim=1)
        return _over_points(values.unsqueeze(1))[:, :, 0]

    def rescale(self, window: Tensor) -> Tensor:
        """Engineering units to scaled and bounded values, f32[B, T, C]."""
        return ((window - self.offset) / self.scale).clamp(-INPUT_BOUND, INPUT_BOUND)

    def distance(self, embedded: Embedded, nearest: Tensor) -> Tensor:
        """As f32[B, C, M]: mean over the modalities, each in units of its own level."""
        return (self.space.source_distances(embedded, nearest) / self.distance_level).mean(dim=1)

    def directions(self, embedded: Embedded) -> Directions:
        """First principal component of each run of w lag vectors."""
        runs = self.runs(embedded.lags.unsqueeze(1)).squeeze(1)
        found = self.principal(runs)
        observed = embedded.weight.mean(dim=1)[:, None, :, None]
        weight = self.runs(observed).squeeze(1).squeeze(3).amin(dim=2)
        return Directions(found.direction, found.eigengap, found.variance, weight)

    def certainty(self, found: Directions) -> Tensor:
        """How much a direction counts: 0…1, f32[B, Q]."""
        return _ramp(found.gap, EIGENGAP) * _ramp(found.variance / self.motion, STILL)

    def turn(self, found: Directions) -> Tensor:
        """The turn z (1/q − 1), z = 1 − max |μᵀv|, f32[B, Q].

        In units of its level q, and the less the nearer q is to 1: where normal directions point
        anywhere, no direction tells anything.
        """
        return (1 - self.alignment(found.vector)) * (1 / self.direction_level - 1)

    def alignment(self, vector: Tensor) -> Tensor:
        """The largest |μ_kᵀv| over k, f32[B, Q]; no sign of v or μ matters."""
        product = torch.sum(vector.unsqueeze(2) * self.means, dim=3)
        return torch.clamp(torch.abs(product).amax(dim=2), max=1.0)

    @classmethod
    def fit(
        cls,
        history: Series,
        timing: Timing,
        *,
        seed: int,
        progress: Progress | None = None,
        **options: Any,
    ) -> CMDML:
        """See `Detector.fit`; the options are those of `FitOptions`."""
        chosen = FitOptions.of(options)
        segments = segments_to_fit(history, timing.window)
        fitted, held_out = divide(segments, timing.window)
        scale = robust_scale(segments)
        rng = np.random.default_rng(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pool = Pool.draw(fitted, scale, timing, chosen.classes, rng)
            words = pool.described([channel.name for channel in history.channels])
            settings = CMDMLSettings(
                len(history.channels), timing, pool.classes, *chosen.shape, behaviours=words
            )
            net = cls(settings)
            net.offset.copy_(torch.from_numpy(scale[0]))
            net.scale.copy_(torch.from_numpy(scale[1]))
            start_centres(net.space, pool)
            optimise(net.space, pool, chosen, rng, progress)
        net.eval().requires_grad_(False)
        estimate(net, fitted, held_out)
        return net

    @classmethod
    def check_options(cls, options: dict[str, Any]) -> None:
        """See `Detector.check_options`."""
        FitOptions.of(options)

    def settings(self) -> dict[str, Any]:
        """See `Detector.settings`."""
        return dataclasses.asdict(self._settings)

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> CMDML:
        """See `Detector.from_settings`."""
        try:
            timing = Timing(**settings["timing"])
            net = cls(CMDMLSettings(**{**settings, "timing": timing}))
        except (KeyError, TypeError) as error:
            raise ConfigError(f"detector.settings: not those of cmdml: {error}") from error
        return net.eval().requires_grad_(False)


def _ramp(x: Tensor, limits: tuple[float, float]) -> Tensor:
    low, high = limits
    return ((x - low) / (high - low)).clamp(0.0, 1.0)


def _over_points(x: Tensor) -> Tensor:
    """f32[B, c, N] → f32[B, T, c]: what holds for a patch, at each of its points."""
    return x.transpose(1, 2).unsqueeze(2).expand(-1, -1, PATCH, -1).flatten(1, 2)


def _root_mean_square(x: Tensor) -> Tensor:
    return torch.sqrt(torch.mean(x * x, dim=2))


def _degrees(cosine: Tensor) -> Tensor:
    """The arc cosine in degrees for 0…1, to 0.004°; TFLite has no acos.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 4.4.45.
    """
    series = 1.5707288 + cosine * (-0.2121144 + cosine * (0.0742610 - cosine * 0.0187293))
    return torch.sqrt((1 - cosine).clamp(min=0.0)) * series * (180 / torch.pi)
