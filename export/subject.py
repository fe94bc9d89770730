"""What is exported: the float model with all that its files are held against.

A trained model gives one, and so does a bundle with data of normal operation: there the bundle's
own float32 file takes the place of the detector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_tsad.runtime.backends.base import Backend
from edge_tsad.runtime.threshold import Budget, Tail, Threshold
from edge_tsad.training.calibrate import fit_tail
from edge_tsad.training.model import TrainedModel
from edge_tsad.training.series import Segment, Series
from edge_tsad.training.torch_backend import TorchBackend
from edge_tsad.training.windows import WindowSampler
from edge_tsad.types import Channel, PolicySettings, Timing
from export.calibration import calibration_of
from export.tail import ScoreMap
from export.verify import Reference
from export.windows import Windows, distorted

__all__ = ["Subject", "subject_of"]

MOST_WINDOWS = 256
"""Normal windows that a file is compared on; as many distorted ones come on top."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A float model and data of its normal operation.

    ``windows`` are spread over what is known as normal, for ranges of activations; ``held_out`` is
    a stretch to try files on, unseen by the fit where that could be. ``tail`` is that of the float
    model's scores and ``retail`` gives that of a file whose scores are changed by a map.
    """

    name: str
    timing: Timing
    channels: tuple[Channel, ...]
    policy: PolicySettings
    backend: Backend
    windows: Windows
    held_out: Segment
    tail: Tail
    retail: Callable[[ScoreMap], Tail]

    def threshold(self, budget: Budget | None, tail: Tail | None = None) -> Threshold:
        """The threshold of ``tail``, by default the float model's own."""
        return Threshold.from_tail(tail or self.tail, budget or Budget.usual(self.timing))

    def reference(self, threshold: Threshold, seed: int) -> Reference:
        """The float model's answers on normal and distorted windows; ``seed`` is of the latter.

        Raises:
            ExportError: there is nothing to compare on, or no threshold above the median.
        """
        normal = Windows(*WindowSampler([self.held_out], self.timing.window).spread(MOST_WINDOWS))
        return Reference.of(
            self.backend,
            self.timing,
            normal,
            distorted(normal, self.timing.period, seed),
            median=threshold.median,
            threshold=threshold.value,
        )


def subject_of(model: TrainedModel, seed: int, data: Series | None = None) -> Subject:
    """A trained model, with more ``data`` of normal operation; ``seed`` is of tails' bootstrap.

    Raises:
        DataError: the data do not suit the model.
    """
    windows, held_out = Windows(*model.validation), model.held_out
    if data is not None:
        more, held_out = calibration_of(data, model.channels, model.timing)
        windows = Windows.join([windows, more])

    def retail(change: ScoreMap) -> Tail:
        blocks = [change(block) for block in model.calibration]
        return fit_tail(blocks, model.policy, seed, shortfall=model.tail.shortfall)

    return Subject(
        model.detector.name,
        model.timing,
        model.channels,
        model.policy,
        TorchBackend(model.detector),
        windows,
        held_out,
        model.tail,
        retail,
    )
