"""Scores of a file against those of the float model, window by window.

The worst failures of converters and quantizers raise no error. So each file is run by the backend
that a gateway uses, on normal windows and on distorted ones, and compared with the float model
(which is the detector in torch, or a bundle's float32 file), in values and in decisions. Errors are
in units of ``threshold − median normal score``.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_tsad.errors import BackendError, ExportError
from edge_tsad.registry import BACKENDS
from edge_tsad.runtime.backends.base import Backend, DeviceBackend
from edge_tsad.types import FloatArray, Timing
from export.base import Exporter
from export.quantize import Scheme
from export.windows import Windows

__all__ = ["Checked", "Outputs", "Parity", "Reference", "RefusedError", "advice", "run", "verify"]

Outputs = dict[str, FloatArray]

EXPECTED_BOUND = 1e-3
"""Allowed error of ``expected`` in an exact file, as a share of the channel's range."""

EXPECTED_NEAR = 0.1
"""The same in a file that is not exact, at the 99.9th percentile of normal windows: what an alert
says was expected is looked at by people."""

CHANNEL_BOUND = 1e-2
"""Allowed error of ``channel_score`` in an exact file, in units, at the 99.9th percentile: where no
channel deviates, how a score is divided hangs on the last digits."""

CHANGED_SHARE = 0.01
"""Share of windows whose decision may differ in a file that is not exact."""

NEAR = 0.1
"""A peak within this many units of the threshold may fall on either side."""

TIMED_S = 0.3


class RefusedError(ExportError):
    """A file is further from the float model than its scheme allows."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What the float model says, and where decisions fall.

    ``windows`` are ``normal`` windows of the history and then distorted ones; ``outputs`` are the
    float model's answers to all of them.
    """

    windows: Windows
    normal: int
    outputs: Outputs
    median: float
    threshold: float
    timing: Timing

    @classmethod
    def of(
        cls,
        backend: Backend,
        timing: Timing,
        normal: Windows,
        distorted: Windows,
        *,
        median: float,
        threshold: float,
    ) -> Reference:
        """Run the float model, ``backend``, on the windows.

        Raises:
            ExportError: there are no windows, or the threshold is not above the median.
        """
        if not len(normal) or not len(distorted):
            raise ExportError("verification: there are no windows to compare scores on")
        if not threshold > median:
            raise ExportError(
                f"verification: the threshold {threshold:.4g} is not above the median score"
                f" {median:.4g}; train on a history that is not constant"
            )
        windows = Windows.join([normal, distorted])
        outputs = run(backend, windows)
        return cls(windows, len(normal), outputs, median, threshold, timing)

    @property
    def unit(self) -> float:
        """Threshold − median normal score."""
        return self.threshold - self.median

    def as_streamed(self, score: FloatArray) -> npt.NDArray[np.float64]:
        """What a stream makes of window scores f32[n, T], but for its mean over several windows.

        Only the newest D − ⌊S/2⌋ + 1 points of a window count, and they are averaged over S points.
        Both are linear, so the error of a stream's score is a mean of errors of these.
        """
        smoothing = min(self.timing.smoothing, self.timing.reach + 1)
        newest = score[:, self.timing.window - 1 - self.timing.reach :]
        views = np.lib.stride_tricks.sliding_window_view(newest, smoothing, axis=1)
        mean: npt.NDArray[np.float64] = views.mean(axis=2, dtype=np.float64)
        return mean


@dataclass(frozen=True, slots=True)
class Parity:
    """How near a file came; errors are |Δscore| in units, ``latency_ms`` is for one window.

    ``max`` and ``distorted_max`` are over all points of the normal and the distorted windows;
    ``p999``, ``mean`` and ``distorted_p99`` over the scores as they are used in a stream.
    ``distorted_share`` is the 99th percentile of the latter's errors as shares of the score and a
    unit. ``channel_p999`` is of ``channel_score``. ``expected_max`` and ``expected_p999``, which is
    of normal windows, are in shares of a channel's range and None where there is no ``expected``.
    ``changed`` counts windows, of ``windows``, on the other side of the threshold.
    """

    runtime: str
    runtime_version: str
    machine: str
    windows: int
    max: float
    p999: float
    mean: float
    distorted_max: float
    distorted_p99: float
    distorted_share: float
    channel_p999: float
    expected_max: float | None
    expected_p999: float | None
    changed: int
    latency_ms: float


def run(backend: Backend, windows: Windows) -> Outputs:
    """Outputs of ``backend`` on all ``windows``, in batches that it takes."""
    step = backend.max_batch
    parts = [
        backend.score(windows.window[i : i + step], windows.observed[i : i + step])
        for i in range(0, len(windows), step)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True, slots=True)
class Checked:
    """A file that passed: the facts, the open backend, its outputs on the reference's windows."""

    parity: Parity
    backend: Backend
    outputs: Outputs


def verify(
    label: str, model: bytes, exporter: Exporter, scheme: Scheme, reference: Reference
) -> Checked:
    """Compare a file with the float model.

    Args:
        label: what the file is called in messages.
        model: the file.
        exporter: its format.
        scheme: its quantization, which sets the bounds.
        reference: the float model's answers.

    Raises:
        ExportError: the file is further away than its scheme allows (the sentence says by how much
            and what to try), or cannot be run here.
    """
    kind: type[DeviceBackend] = BACKENDS[next(iter(exporter.runtimes))]
    points, channels = reference.windows.window.shape[1:]
    try:
        backend = kind(model, shape=(points, channels))
        outputs = run(backend, reference.windows)
    except BackendError as error:
        raise RefusedError(f"{label}: refused, it does not run: {error}") from error
    if set(outputs) != set(reference.outputs):
        raise RefusedError(f"{label}: refused, its outputs are {', '.join(sorted(outputs))}")
    parity = _compare(backend, str(kind.version()), outputs, reference)
    for problem in _problems(parity, scheme):
        raise RefusedError(f"{label}: refused, {problem}; {advice(scheme)}")
    return Checked(parity, backend, outputs)


def _compare(backend: Backend, version: str, outputs: Outputs, reference: Reference) -> Parity:
    count, unit = reference.normal, reference.unit
    # What is not finite is infinitely far away; a comparison with NaN would pass for agreement.
    with np.errstate(invalid="ignore", over="ignore"):
        errors = {
            name: np.where(np.isfinite(values), np.abs(values - reference.outputs[name]), np.inf)
            for name, values in outputs.items()
        }
    score = errors["score"] / unit
    with np.errstate(invalid="ignore"):
        used = np.abs(
            reference.as_streamed(outputs["score"])
            - reference.as_streamed(reference.outputs["score"])
        )
    used = np.where(np.isfinite(used), used, np.inf) / unit
    above = np.maximum(reference.as_streamed(reference.outputs["score"]) - reference.median, 0)
    expected = _expected_errors(errors, reference)
    return Parity(
        runtime=backend.name,
        runtime_version=version,
        machine=platform.machine(),
        windows=len(score),
        max=float(score[:count].max()),
        p999=float(np.quantile(used[:count], 0.999, method="higher")),
        mean=float(used[:count].mean()),
        distorted_max=float(score[count:].max()),
        distorted_p99=float(np.quantile(used[count:], 0.99, method="higher")),
        distorted_share=float(
            np.quantile((used / (1 + above / unit))[count:], 0.99, method="higher")
        ),
        channel_p999=float(np.quantile(errors["channel_score"], 0.999, method="higher")) / unit,
        expected_max=None if expected is None else float(expected.max()),
        expected_p999=None
        if expected is None
        else float(np.quantile(expected[:count], 0.999, method="higher")),
        changed=_changed(outputs["score"], reference),
        latency_ms=_latency_ms(backend, reference.windows.take(8)),
    )


def _expected_errors(
    errors: dict[str, npt.NDArray[np.float32]], reference: Reference
) -> npt.NDArray[np.float32] | None:
    """In shares of the channels' ranges; None where nothing is expected."""
    if "expected" not in errors:
        return None
    span = np.ptp(reference.windows.window[: reference.normal], axis=(0, 1))
    shares: npt.NDArray[np.float32] = errors["expected"] / np.where(span > 0, span, 1)
    return shares


def _changed(score: FloatArray, reference: Reference) -> int:
    """Windows decided otherwise, but for those so near the threshold that both are right."""
    here = reference.as_streamed(score).max(axis=1)
    there = reference.as_streamed(reference.outputs["score"]).max(axis=1)
    clear = np.abs(there - reference.threshold) > NEAR * reference.unit
    flipped = (here >= reference.threshold) != (there >= reference.threshold)
    return int((flipped & clear).sum())


def _latency_ms(backend: Backend, windows: Windows) -> float:
    """Median time of one window, the first runs left out."""
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 10 or time.perf_counter() - began < TIMED_S:
        i = len(times) % len(windows)
        start = time.perf_counter()
        backend.score(windows.window[i : i + 1], windows.observed[i : i + 1])
        times.append(time.perf_counter() - start)
    return round(float(np.median(times[5:])) * 1e3, 4)


def _problems(parity: Parity, scheme: Scheme) -> Iterator[str]:
    """Why a file is refused; nothing if it is not."""
    distance = "of the distance from the median normal score to the threshold"
    allowed = f"where {scheme.bound:g} is allowed"
    worst = max(parity.max, parity.distorted_max)
    expected = parity.expected_max or 0.0
    if not np.isfinite([worst, parity.channel_p999, expected]).all():
        yield "some of its outputs are not finite"
    if scheme.exact and not worst <= scheme.bound:
        yield f"its scores differ by up to {worst:.3g} {distance}, {allowed}"
    if not parity.p999 <= scheme.bound:
        yield (
            f"its scores differ by {parity.p999:.3g} {distance} at the 99.9th percentile of normal"
            f" windows, {allowed}"
        )
    if scheme.exact and not parity.channel_p999 <= CHANNEL_BOUND:
        yield (
            f"its channel scores differ by {parity.channel_p999:.3g} {distance}, where"
            f" {CHANNEL_BOUND:g} is allowed"
        )
    if scheme.exact and not expected <= EXPECTED_BOUND:
        yield (
            f"its expected values differ by up to {expected:.3g} of a channel's range, where"
            f" {EXPECTED_BOUND:g} is allowed"
        )
    most = 0 if scheme.exact else int(CHANGED_SHARE * parity.windows)
    if parity.changed > most:
        yield f"{parity.changed} of {parity.windows} windows are decided otherwise"
    if not parity.distorted_share <= scheme.distorted:
        yield (
            f"its scores of distorted windows differ by {parity.distorted_share:.1%} of themselves"
            f" at the 99th percentile, where {scheme.distorted:.1%} is allowed"
        )
    seen = parity.expected_p999 or 0.0
    if not scheme.exact and not seen <= EXPECTED_NEAR:
        yield (
            f"its expected values differ by {seen:.3g} of a channel's range at the 99.9th"
            f" percentile of normal windows, where {EXPECTED_NEAR:g} is allowed"
        )


def advice(scheme: Scheme) -> str:
    """What to try where a file of ``scheme`` is refused."""
    if scheme.exact:
        return "try another format, this converter is wrong for this detector"
    return "try another format or scheme (none is exact), or train on a longer history"
