"""CoAD: a classifier of patches and a masked reconstruction that help each other.

Tang et al., "Bridging Classification and Reconstruction: Cooperative Time Series Anomaly
Detection", KDD 2026, arXiv 2605.26193. The encoder is convolutional here instead of the paper's
recurrent one; how it is fitted is in ``coad_fit``. A third term is this project's own: the distance
to the nearest shape of the history (``shapes``).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from edge_tsad.detectors.base import Detector, Progress
from edge_tsad.detectors.coad_fit import FitOptions, optimise, usual_terms
from edge_tsad.detectors.encoders import make_encoder
from edge_tsad.detectors.missing import as_seen, bridge
from edge_tsad.detectors.shapes import ShapeBank
from edge_tsad.detectors.spectrum import VALUES_PER_POINT, short_time_spectrum
from edge_tsad.errors import ConfigError
from edge_tsad.training.scaling import history_scale
from edge_tsad.training.series import Series
from edge_tsad.training.windows import segments_to_fit
from edge_tsad.types import Timing

__all__ = ["PATCH", "CoAD", "CoADSettings"]

PATCH = 8
"""Points in a patch (P)."""

INPUT_BOUND = 4.0
"""Scaled inputs are cut at ± this many ranges of the history, so that a sensor which fails with a
huge value gives a finite score, yet one several times above what normal data can reach."""

REFERENCE_BOUND = 1.0
"""The reconstruction is cut at ± this many ranges, twice as far as the history went: it shall be
what is normal, and must not follow a failed sensor to its value."""

PROBABILITY_WEIGHT, RESIDUAL_WEIGHT, SHAPE_WEIGHT = 1.0, 2.0, 1.5
"""Weights of the score's terms: of what the patch's probability is beyond the usual; of the same of
|x − x_r|, in ranges of the history; of the distance to known shapes, 1 being what a hundredth of
the history exceeds. Chosen on series for choosing (benchmarks/ablation.md)."""

_SHARE_FLOOR = 1e-6


@dataclass(frozen=True, slots=True)
class CoADSettings:
    """The shape of the net: ``width`` of the classifier's encoder, of the reconstruction's."""

    channels: int
    timing: Timing
    encoder: str = "conv"
    width: int = 48
    reconstruction_width: int = 24

    def __post_init__(self) -> None:
        for field in ("channels", "width", "reconstruction_width"):
            if getattr(self, field) < 1:
                raise ConfigError(f"coad.{field}: {getattr(self, field)} is less than 1")
        if self.timing.window % PATCH or self.timing.window < 2 * PATCH:
            raise ConfigError(
                f"timing.window: {self.timing.window} is not a multiple of {PATCH} "
                f"of at least {2 * PATCH}"
            )


class Judgement(NamedTuple):
    """``features`` f32[2, B, N, H] and ``logits`` f32[2, B, N] of the time and frequency branch."""

    features: Tensor
    logits: Tensor

    @property
    def fused(self) -> Tensor:
        """Logits f32[B, N]: the larger of the two branches."""
        return self.logits.amax(dim=0)


class Terms(NamedTuple):
    """What a score is made of: ``probability`` and its excess f32[B, T], the others f32[B, T, C].

    Scaled, and none of them weighted. An excess is what is left of a term beyond the usual.
    """

    probability: Tensor
    probability_excess: Tensor
    residual: Tensor
    residual_excess: Tensor
    strangeness: Tensor
    expected: Tensor


class CoAD(Detector):
    """The net and the detector; ``forward`` is inference, ``judge`` and the like its parts.

    N = T / P patches. Arrays named ``x`` are scaled: 0 is the middle of the history's range and 1
    its width.
    """

    name: ClassVar[str] = "coad"
    patch: ClassVar[int] = PATCH
    offset: Tensor
    scale: Tensor
    usual_probability: Tensor
    usual_residual: Tensor

    def __init__(self, settings: CoADSettings) -> None:
        super().__init__()
        self._settings = settings
        self.timing = settings.timing
        self.channels = settings.channels
        width, narrow, points = settings.width, settings.reconstruction_width, PATCH * self.channels
        self.register_buffer("offset", torch.zeros(self.channels))
        self.register_buffer("scale", torch.ones(self.channels))
        self.register_buffer("usual_probability", torch.zeros(()))
        self.register_buffer("usual_residual", torch.zeros(self.channels))
        self.time_embed = nn.Linear(points + self.channels, width)
        self.frequency_embed = nn.Linear(VALUES_PER_POINT * points + self.channels, width)
        self.encoder = make_encoder(settings.encoder, width)
        self.heads = nn.ModuleList(nn.Linear(width, 1) for _ in range(2))
        self.residual_heads = nn.ModuleList(nn.Linear(width, 1) for _ in range(2))
        self.mask_embedding = nn.Parameter(torch.randn(narrow) * narrow**-0.5)
        self.patch_embed = nn.Linear(points + self.channels, narrow)
        self.decoder = make_encoder(settings.encoder, narrow)
        self.to_points = nn.Linear(narrow, points)
        self.bank = ShapeBank(self.timing, self.channels)

    def forward(self, window: Tensor, observed: Tensor) -> dict[str, Tensor]:
        """Scores a batch; the arrays are those of the table in ``edge_tsad.types``.

        ``score`` = a + 2·e + 1.5·s, where a ∈ [0, 1] is what the patch's probability A_c is
        beyond the usual, and e and s are root mean squares over the channels: of what |x − x_r| is
        beyond the channel's usual, and of the mean distance to the shapes of the history. A point
        that was not observed has no e and no s; a patch without any observed point has nothing.
        ``channel_score`` divides the score in proportion to 2·e + 1.5·s of each channel and sums up
        to it. ``expected`` is x_r in engineering units.
        """
        terms = self.terms(window, observed)
        residual, shapes = RESIDUAL_WEIGHT * terms.residual_excess, SHAPE_WEIGHT * terms.strangeness
        score = PROBABILITY_WEIGHT * terms.probability_excess
        for term in (residual, shapes):
            score = score + (term[:, :, 0] if self.channels == 1 else _root_mean_square(term))
        weight = residual + shapes + _SHARE_FLOOR
        share = weight / torch.sum(weight, dim=2, keepdim=True)
        return {
            "score": score,
            "channel_score": score.unsqueeze(2) * share,
            "expected": terms.expected * self.scale + self.offset,
        }

    def terms(self, window: Tensor, observed: Tensor) -> Terms:
        """Steps 1 to 6, and the distance to known shapes."""
        x, coverage = bridge(self.rescale(window), observed), self.coverage(observed)
        has_data = self.has_data(coverage)
        first = self.judge(x, coverage)
        probability = torch.sigmoid(first.fused)
        draft = self.reconstruct(x, coverage, self.mask(probability, has_data))
        second = self.compare(first, self.judge(as_seen(draft, x, observed), coverage))
        joint = (probability + torch.sigmoid(second.fused)) * 0.5
        expected = self.reconstruct(x, coverage, self.mask(joint, has_data))
        residual = torch.abs(x - expected)
        strangeness: Tensor = self.bank(as_seen(x, draft, observed))
        return Terms(
            _over_points(joint * has_data),
            _over_points((joint - self.usual_probability).clamp(min=0.0) * has_data),
            residual * observed,
            (residual - self.usual_residual).clamp(min=0.0) * observed,
            strangeness * observed,
            expected,
        )

    def rescale(self, window: Tensor) -> Tensor:
        """Engineering units to scaled and bounded values, f32[B, T, C]."""
        return ((window - self.offset) / self.scale).clamp(-INPUT_BOUND, INPUT_BOUND)

    def coverage(self, observed: Tensor) -> Tensor:
        """The observed share of each patch and channel, f32[B, N, C]."""
        return _patches(observed).mean(dim=2)

    def has_data(self, coverage: Tensor) -> Tensor:
        """1 where a patch has any observed point, else 0; f32[B, N]."""
        return (coverage.amax(dim=2) * PATCH).clamp(max=1.0)

    def judge(self, x: Tensor, coverage: Tensor) -> Judgement:
        """Steps 2 and 3: both branches through the one encoder."""
        spectrum = short_time_spectrum(x)
        branches = (
            self.time_embed(_joined(x, coverage)),
            self.frequency_embed(_joined(spectrum, coverage)),
        )
        # One pass for both branches: the encoder is shared, and BatchNorm sees both in each batch.
        features = self.encoder(torch.selu(torch.cat(branches)))
        features = features.reshape(2, -1, *features.shape[1:])
        return Judgement(features, _logits(features, self.heads))

    def mask(self, probability: Tensor, has_data: Tensor) -> Tensor:
        """The soft mask f32[B, N]: the probability, and 1 where a patch has no data at all."""
        return torch.maximum(probability, 1 - has_data)

    def reconstruct(self, x: Tensor, coverage: Tensor, mask: Tensor) -> Tensor:
        """Step 4: E = mask · e_mask + (1 − mask) · W x_patch, encoder, head; f32[B, T, C]."""
        hidden = mask.unsqueeze(2)
        embedded = self.patch_embed(_joined(x, coverage))
        embedded = hidden * self.mask_embedding + (1 - hidden) * embedded
        points: Tensor = self.to_points(self.decoder(embedded))
        points = points.reshape(-1, self.timing.window, self.channels)
        return points.clamp(-REFERENCE_BOUND, REFERENCE_BOUND)

    def compare(self, seen: Judgement, reference: Judgement) -> Judgement:
        """Step 5: the feature differences between a window and its x_r, classified."""
        difference = seen.features - reference.features
        return Judgement(difference, _logits(difference, self.residual_heads))

    def fold(self) -> CoAD:
        """Merges the normalisation layers into their neighbours, for good, and returns itself."""
        self.eval()
        self.encoder.fold()
        self.decoder.fold()
        return self.requires_grad_(False)

    @classmethod
    def fit(
        cls,
        history: Series,
        timing: Timing,
        *,
        seed: int,
        progress: Progress | None = None,
        **options: Any,
    ) -> CoAD:
        """See `Detector.fit`; the options are those of `FitOptions`."""
        chosen = FitOptions.of(options)
        segments = segments_to_fit(history, timing.window)
        scale = history_scale(segments)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = cls(CoADSettings(len(history.channels), timing, *chosen.shape))
            net.offset.copy_(torch.from_numpy(scale.offset))
            net.scale.copy_(torch.from_numpy(scale.scale))
            optimise(net, segments, chosen, np.random.default_rng(seed), progress)
        net.fold()
        probability, residual = usual_terms(net, segments)
        net.usual_probability.copy_(probability)
        net.usual_residual.copy_(residual)
        return net

    @classmethod
    def check_options(cls, options: dict[str, Any]) -> None:
        """See `Detector.check_options`."""
        FitOptions.of(options)

    def settings(self) -> dict[str, Any]:
        """See `Detector.settings`."""
        return dataclasses.asdict(self._settings)

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> CoAD:
        """See `Detector.from_settings`."""
        try:
            timing = Timing(**settings["timing"])
            return cls(CoADSettings(**{**settings, "timing": timing})).fold()
        except (KeyError, TypeError) as error:
            raise ConfigError(f"detector.settings: not those of coad: {error}") from error


def _patches(x: Tensor) -> Tensor:
    """f32[B, T, c] → f32[B, N, P, c]."""
    return x.reshape(-1, x.shape[1] // PATCH, PATCH, x.shape[2])


def _joined(x: Tensor, coverage: Tensor) -> Tensor:
    """What an embedding sees of a patch: its values and how much of each channel was observed."""
    return torch.cat([_patches(x).flatten(2), coverage], dim=2)


def _over_points(x: Tensor) -> Tensor:
    """f32[B, N, …] → f32[B, T, …]: what holds for a patch, at each of its points."""
    return x.unsqueeze(2).expand(-1, -1, PATCH, *x.shape[2:]).flatten(1, 2)


def _root_mean_square(x: Tensor) -> Tensor:
    return torch.sqrt(torch.mean(x * x, dim=2))


def _logits(features: Tensor, heads: nn.ModuleList) -> Tensor:
    """Logits f32[2, B, N] of features f32[2, B, N, H], each branch by its own head."""
    return torch.stack([head(features[branch]) for branch, head in enumerate(heads)]).squeeze(3)
