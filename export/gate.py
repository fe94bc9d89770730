"""All that a file must pass before it is written; refusals are sentences with figures.

Scores on windows (``verify``), what other runtimes get wrong (``traps``, ``kernels``), ties among
high scores, probe inputs, and alerts on a stream, in this order: the cheap ones first.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from dataclasses import dataclass

import numpy as np

from edge_tsad.decode import Json
from edge_tsad.errors import DataError
from edge_tsad.runtime.backends.base import Backend
from edge_tsad.runtime.threshold import Budget, Tail, Threshold
from edge_tsad.types import FloatArray, IndexArray
from export.alerts import LEAST_ALERTS, LEAST_COMPARED, Matched, Stream, compose, match, onsets
from export.base import Exporter
from export.kernels import disagreement
from export.probes import probe_windows
from export.quantize import Scheme
from export.subject import Subject
from export.tail import ScoreMap
from export.verify import Checked, Reference, RefusedError, advice, run, verify
from export.windows import Windows

__all__ = ["LEAST_F1", "Gate", "Passed"]

logger = logging.getLogger(__name__)

LEAST_F1 = 0.99
"""Of the alerts of a file, taking the float model's for true."""

DISTINCT = 1000
"""Distinct values that the top ``HIGH`` of the scores of normal windows must have, or half of the
float model's where it has fewer than twice as many: integer outputs tie, and thresholds then fall
on steps."""

HIGH = 0.05


@dataclass(frozen=True, slots=True)
class Passed:
    """A file that passed: facts about it for people, its own tail and threshold, its alerts."""

    parity: dict[str, Json]
    tail: Tail
    backend: Backend
    onsets: IndexArray


@dataclass(frozen=True, slots=True)
class Gate:
    """What every file of a subject is held against.

    ``probes`` have the float model's scores f32[n, T]; ``expected`` are the onsets of its alerts on
    ``stream``.
    """

    subject: Subject
    budget: Budget | None
    threshold: Threshold
    reference: Reference
    probes: dict[str, tuple[Windows, FloatArray]]
    stream: Stream
    expected: IndexArray

    @classmethod
    def of(cls, subject: Subject, budget: Budget | None, seed: int) -> Gate:
        """The answers of the float model to everything that files will be asked.

        Raises:
            ExportError: there is nothing to compare on, or no threshold above the median.
            DataError: the data are no normal operation to the model, or it hardly ever alerts.
        """
        threshold = subject.threshold(budget)
        reference = subject.reference(threshold, seed)
        probes = {
            name: (windows, run(subject.backend, windows)["score"])
            for name, windows in probe_windows(reference.windows.first(reference.normal)).items()
        }
        stream, expected = compose(subject, threshold, seed)
        if len(expected) < LEAST_COMPARED:
            raise DataError(
                f"{subject.name}: the model gives only {len(expected)} alerts on {stream.events}"
                f" injected anomalies, where {LEAST_COMPARED} are needed to compare files by their"
                " alerts; train on a longer history, or ask for a larger --budget"
            )
        if len(expected) < LEAST_ALERTS:
            logger.warning(
                "%s: the float model gives %d alerts on %d injected anomalies, where %d are wanted,"
                " so alerts of its files say less; a longer history gives a lower threshold",
                subject.name,
                len(expected),
                stream.events,
                LEAST_ALERTS,
            )
        return cls(subject, budget, threshold, reference, probes, stream, expected)

    def check(self, label: str, data: bytes, exporter: Exporter, scheme: Scheme) -> Passed:
        """Let a file pass or refuse it.

        Args:
            label: what the file is called in messages.
            data: the file.
            exporter: its format.
            scheme: its quantization, which sets the bounds.

        Raises:
            RefusedError: the file is outside a bound; the sentence says by how much and what to
                try.
        """
        checked = verify(label, data, exporter, scheme, self.reference)
        trap = exporter.trap(data)
        if trap:
            raise RefusedError(f"{label}: refused, {trap}; {advice(scheme)}")
        across = disagreement(data, exporter, checked.outputs, self.reference)
        if across > scheme.across:
            raise RefusedError(
                f"{label}: refused, its scores differ by {across:.3g} of the distance from the"
                " median normal score to the threshold between runtimes, where"
                f" {scheme.across:g} is allowed; {advice(scheme)}"
            )
        distinct, least = self._distinct(checked)
        worst = 0.0
        problem = ""
        if distinct < least:
            problem = (
                f"its scores tie: the highest {HIGH:.0%} on normal windows have {distinct:,}"
                f" distinct values, where {least:,} are needed"
            )
        else:
            worst, problem = self._probe(checked.backend, scheme)
        if problem:
            raise RefusedError(f"{label}: refused, {problem}; {advice(scheme)}")
        tail = self._tail(checked)
        threshold = self.subject.threshold(self.budget, tail)
        found = onsets(checked.backend, self.stream, self.subject, threshold)
        matched = match(self.stream, self.expected, found, self.slack)
        if matched.f1 < LEAST_F1:
            raise RefusedError(
                f"{label}: refused, {matched.changed} of its alerts differ: it gives"
                f" {matched.found} where the float model gives {matched.expected}, and"
                f" {matched.matched} agree (F1 {matched.f1:.3f}, where {LEAST_F1:g} is needed);"
                f" {advice(scheme)}"
            )
        facts = dataclasses.asdict(checked.parity) | _facts(matched, distinct, worst, across)
        return Passed(facts, tail, checked.backend, found)

    @property
    def slack(self) -> int:
        """Points by which onsets of one alert may differ: H + S."""
        return self.subject.timing.hop + self.subject.timing.smoothing

    def _tail(self, checked: Checked) -> Tail:
        detector, file = self.reference.outputs["score"], checked.outputs["score"]
        return self.subject.retail(ScoreMap(detector.ravel(), file.ravel()))

    def _distinct(self, checked: Checked) -> tuple[int, int]:
        """Distinct high scores of the file, and how many there must be."""
        count = self.reference.normal
        there = _high_values(self.reference.outputs["score"][:count])
        return _high_values(checked.outputs["score"][:count]), min(DISTINCT, there // 2)

    def _probe(self, backend: Backend, scheme: Scheme) -> tuple[float, str]:
        """The worst error on a probe as a multiple of what is allowed, and the problem if any."""
        worst = 0.0
        for name, (windows, reference) in self.probes.items():
            outputs = run(backend, windows)
            if not all(np.isfinite(values).all() for values in outputs.values()):
                return math.inf, f"its outputs are not finite for {name}"
            # Peaks, for they decide on alerts; between them a window may hold values of any size.
            here, there = outputs["score"].max(axis=1), reference.max(axis=1)
            error = np.abs(here - there)
            allowed = scheme.probe * (self.reference.unit + there)
            # Ranges of int8 end where the history did; how far beyond an alarm does not matter.
            both = np.minimum(here, there) >= self.reference.threshold
            error[both & (not scheme.exact)] = 0
            ratio = float((error / allowed).max())
            if ratio > 1:
                return ratio, (
                    f"for {name} its highest score is {ratio:.3g} times as far from the float"
                    " model's as allowed"
                )
            worst = max(worst, ratio)
        return worst, ""


def _high_values(score: FloatArray) -> int:
    values = score.ravel()
    return len(np.unique(values[values >= np.quantile(values, 1 - HIGH)]))


def _facts(matched: Matched, distinct: int, worst_probe: float, across: float) -> dict[str, Json]:
    return {
        "alerts": dataclasses.asdict(matched) | {"f1": matched.f1, "changed": matched.changed},
        "distinct": distinct,
        "probes": worst_probe,
        "across": across,
    }
