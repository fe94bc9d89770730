"""What the report shows: the trained model's scores, and every file of the bundle beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_tsad.bundle.archive import Bundle
from edge_tsad.bundle.manifest import ModelFile
from edge_tsad.decode import encode
from edge_tsad.errors import BackendError, ExportError
from edge_tsad.runtime.backends.select import open_file
from edge_tsad.runtime.threshold import Budget, Threshold
from edge_tsad.training.model import TrainedModel
from edge_tsad.training.torch_backend import TorchBackend
from edge_tsad.types import FloatArray
from export.quantize import SCHEMES
from export.verify import Reference, run
from export.windows import Windows, distorted

__all__ = ["Example", "Facts", "Parity", "gather"]

Float64 = npt.NDArray[np.float64]

NORMAL_EXAMPLE, DISTORTED_EXAMPLE = 0.5, 0.9
"""Which of the windows are shown: the quantile of their highest scores."""


@dataclass(frozen=True, slots=True)
class Example:
    """One window: ``score`` f32[T], all else f32[T, C]; ``expected`` where the detector has one."""

    title: str
    seen: FloatArray
    observed: FloatArray
    score: FloatArray
    channel_score: FloatArray
    expected: FloatArray | None


@dataclass(frozen=True, slots=True)
class Parity:
    """One file beside the detector in torch.

    ``error``: |Δscore| in units of threshold − median, as used in a stream, over normal windows;
    ``distorted_error`` likewise. ``detector`` and ``file``: such scores f32[n] of both. ``bound``:
    what the scheme allows at the 99.9th percentile of ``error``. ``problem`` says why it could
    not be run here; the arrays are empty then.
    """

    entry: ModelFile
    runtime: str
    error: Float64
    distorted_error: Float64
    detector: FloatArray
    file: FloatArray
    bound: float
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is shown; ``threshold`` is that of the detector itself for ``budget``."""

    bundle: Bundle
    model: TrainedModel
    budget: Budget
    threshold: Threshold
    examples: tuple[Example, ...]
    parity: tuple[Parity, ...]


def gather(bundle: Bundle, model: TrainedModel, budget: Budget | None = None) -> Facts:
    """Run the detector and every file on the windows that the model keeps for checks.

    Args:
        bundle: made from ``model``.
        model: what training left.
        budget: whose threshold is shown; None takes one opening a week, or one per 10,000 points
            where data has no rate.

    Raises:
        ExportError: the bundle was made from another model, or there is nothing to compare with.
    """
    check_origin(bundle, model)
    if budget is None:
        budget = Budget.parse("1/7d" if model.timing.has_rate else "1/10000pt", model.timing)
    threshold = Threshold.from_tail(model.tail, budget)
    normal = Windows(*model.validation)
    seed = bundle.manifest.golden.seed
    reference = Reference.of(
        TorchBackend(model.detector),
        model.timing,
        normal,
        distorted(normal, model.timing.period, seed),
        median=threshold.median,
        threshold=threshold.value,
    )
    parity = tuple(_parity(bundle, entry, reference) for entry in bundle.manifest.files)
    return Facts(bundle, model, budget, threshold, _examples(reference), parity)


def check_origin(bundle: Bundle, model: TrainedModel) -> None:
    """Refuse a model that the bundle was not made from.

    Raises:
        ExportError: settings, channels or facts of the training differ.
    """
    manifest = bundle.manifest
    same = (
        manifest.detector.name == model.detector.name
        and manifest.detector.settings == encode(model.detector.settings())
        and manifest.timing == model.timing
        and manifest.channels == model.channels
        and all(manifest.training.get(key) == encode(fact) for key, fact in model.facts.items())
    )
    if not same:
        raise ExportError(
            f"{bundle.where}: was made from another model; give the one that it was exported from,"
            " or export this one again"
        )


def _examples(reference: Reference) -> tuple[Example, ...]:
    peak = reference.outputs["score"].max(axis=1)
    count = reference.normal
    middle = _at_quantile(peak[:count], NORMAL_EXAMPLE)
    odd = count + _at_quantile(peak[count:], DISTORTED_EXAMPLE)
    return (
        _example("a window of the history", reference, middle),
        _example("a window of the history with a simulated anomaly", reference, odd),
    )


def _at_quantile(peak: FloatArray, q: float) -> int:
    return int(np.argsort(peak, kind="stable")[int(q * (len(peak) - 1))])


def _example(title: str, reference: Reference, row: int) -> Example:
    outputs, windows = reference.outputs, reference.windows
    return Example(
        title,
        windows.window[row],
        windows.observed[row],
        outputs["score"][row],
        outputs["channel_score"][row],
        outputs["expected"][row] if "expected" in outputs else None,
    )


def _parity(bundle: Bundle, entry: ModelFile, reference: Reference) -> Parity:
    """Compare one file on the first of its runtimes that opens it here."""
    scheme = SCHEMES.get(entry.scheme)
    bound = scheme.bound if scheme else float("nan")
    empty = np.empty(0)
    problems = []
    for runtime in entry.runtimes:
        try:
            backend = open_file(runtime, entry, bundle.read)
            score = run(backend, reference.windows)["score"]
        except BackendError as error:
            problems.append(str(error))
            continue
        here = reference.as_streamed(score)
        there = reference.as_streamed(reference.outputs["score"])
        off, count = np.abs(here - there) / reference.unit, reference.normal
        return Parity(
            entry,
            runtime,
            off[:count].ravel(),
            off[count:].ravel(),
            there.ravel().astype(np.float32),
            here.ravel().astype(np.float32),
            bound,
        )
    narrow = np.empty(0, np.float32)
    return Parity(entry, "", empty, empty, narrow, narrow, bound, "; ".join(problems))
