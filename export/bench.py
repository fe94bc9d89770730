"""The workbench of a subject: one file after another is made, tried, and given its own tail."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edge_tsad.bundle.golden import GoldenWindows
from edge_tsad.bundle.manifest import Bounds, Listed, ModelFile
from edge_tsad.decode import Json
from edge_tsad.runtime.threshold import Budget
from export.base import Exporter
from export.gate import Gate
from export.golden import golden_bounds, make_golden
from export.quantize import SCHEMES, Scheme
from export.sensitivity import Sensitivity
from export.subject import Subject
from export.verify import RefusedError, run
from export.windows import Windows, calibration_windows

__all__ = ["Bench", "Exported"]

IN_FLOAT = {"weights": "int8", "fp16": "float16"}
"""Schemes of layers that compute in float32 in a file of an integer scheme, with the type of their
weights, the smaller one first."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Exported:
    """A verified model file: ``entry.path`` is its place in a bundle, ``name`` its name alone."""

    name: str
    data: bytes
    entry: ModelFile
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class Bench:
    """What every file of a subject is held against, and made with.

    ``level`` is the score at which decisions about golden windows are compared; ``ranges`` are the
    windows that ranges of activations may be taken from.
    """

    subject: Subject
    gate: Gate
    golden: GoldenWindows
    level: float
    ranges: tuple[Windows, ...]

    @classmethod
    def of(cls, subject: Subject, budget: Budget | None, seed: int) -> Bench:
        """A gate, golden windows and windows to calibrate with, all from ``seed``."""
        period = subject.timing.period
        golden, level = make_golden(subject.backend, subject.windows, period, seed=seed)
        ranges = calibration_windows(subject.windows, period, seed + 1)
        return cls(subject, Gate.of(subject, budget, seed), golden, level, ranges)

    def label(self, exporter: Exporter, scheme: Scheme) -> str:
        """What a file is called."""
        return f"{self.subject.name}-{scheme.label}.{exporter.format}"

    def quantized(
        self, label: str, original: bytes, exporter: Exporter, scheme: Scheme
    ) -> Exported:
        """The file of ``scheme``, or where that is refused the one of the scheme instead of it.

        Where the file with all large layers quantized is refused, those that cost the most compute
        in float32, one more at a time: with the ranges that cost less, then with the others; with
        int8 weights, and where that is not enough with float16 ones. All are called ``label``; the
        entry's scheme says which it is, and its facts which layers.

        Raises:
            ExportError: the last of them was refused.
        """
        layers = exporter.layers(original)
        for ranges, overrides in self._choices(original, exporter, scheme):
            data = exporter.quantize(original, scheme.name, ranges, overrides)
            in_float = {at: f"{layers[at]} ({IN_FLOAT[how]})" for at, how in overrides.items()}
            try:
                return self.finish(label, data, exporter, scheme, in_float)
            except RefusedError as error:
                logger.info("%s (in float: %s)", error, ", ".join(in_float.values()) or "none")
                refusal = error
        if not scheme.instead:
            raise refusal
        logger.warning("%s; taking %r instead of %r", refusal, scheme.instead, scheme.name)
        return self.quantized(label, original, exporter, SCHEMES[scheme.instead])

    def _choices(
        self, original: bytes, exporter: Exporter, scheme: Scheme
    ) -> Iterator[tuple[Windows, dict[int, str]]]:
        """Windows for ranges, and what layers take instead of ``scheme``: at first none."""
        candidates = [self.ranges[0]]
        if not scheme.mixed:
            yield candidates[0], {}
            return
        sensitivity = Sensitivity.of(exporter, self.gate)
        if scheme.ranged:
            candidates = sensitivity.ranges_by_cost(original, scheme, self.ranges)
        yield candidates[0], {}
        # At least one is quantized, or the file would have the wrong name.
        most = len(exporter.layers(original)) - 1
        if most < 1:
            return
        orders = [sensitivity.most_harmful(original, scheme, ranges) for ranges in candidates]
        for instead in IN_FLOAT:
            for ranges, order in zip(candidates, orders, strict=True):
                for count in range(1, most + 1):
                    yield ranges, dict.fromkeys(sorted(order[:count]), instead)

    def finish(
        self,
        label: str,
        data: bytes,
        exporter: Exporter,
        scheme: Scheme,
        in_float: Mapping[int, str] | None = None,
    ) -> Exported:
        """Let one file through the gate and give it its tail and bounds."""
        passed = self.gate.check(label, data, exporter, scheme)
        golden, unit = self.golden, self.gate.reference.unit
        score = run(passed.backend, Windows(golden.window, golden.observed))["score"]
        bounds = golden_bounds(scheme, golden, score, level=self.level, unit=unit)
        made: dict[str, Json] = {
            "in_float": {str(at): layer for at, layer in (in_float or {}).items()},
            "operators": dict(exporter.operators(data)),
        }
        entry = ModelFile(
            **dataclasses.asdict(Listed.of(f"model/{label}", data)),
            format=exporter.format,
            scheme=scheme.name,
            runtimes=dict(exporter.runtimes),
            tail=passed.tail,
            parity=passed.parity | made,
        )
        return Exported(label, data, entry, bounds)
