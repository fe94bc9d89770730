"""Which layers of a net cost the most when they are quantized, found by trying each on its own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_tsad.registry import BACKENDS
from edge_tsad.runtime.backends.base import Backend, DeviceBackend
from export.base import Exporter
from export.gate import Gate
from export.quantize import Scheme
from export.verify import run
from export.windows import Windows

__all__ = ["most_harmful"]

WINDOWS = 64
"""Normal windows that each layer is tried on, and as many of the stream that alerts are compared
on. Simulated anomalies like those that ranges are taken from do not do: on the stronger ones of
that stream ranges end, and on SKAB the layer that cost most there was among the harmless here."""


def most_harmful(
    original: bytes, exporter: Exporter, scheme: Scheme, ranges: Windows, gate: Gate
) -> list[int]:
    """Positions in ``exporter.layers``, the worst first.

    Each layer alone is quantized by ``scheme`` while all others compute in float32; what counts is
    the mean error of the score as a stream uses it. How far a score is beyond a unit above the
    threshold does not matter.

    Args:
        original: the float32 file.
        exporter: its format.
        scheme: how layers are quantized.
        ranges: windows that ranges of activations are taken from.
        gate: the windows and the stream that files are tried on, and the float model.
    """
    reference = gate.reference
    points = reference.timing.window
    normal = reference.windows.first(reference.normal).take(WINDOWS)
    windows = Windows.join([normal, gate.stream.windows(points, WINDOWS)])

    def scores(backend: Backend) -> npt.NDArray[np.float64]:
        score = reference.as_streamed(run(backend, windows)["score"])
        return np.minimum(score, reference.threshold + reference.unit)

    kind: type[DeviceBackend] = BACKENDS[next(iter(exporter.runtimes))]
    right = scores(gate.subject.backend)
    every = range(len(exporter.layers(original)))
    harm = []
    for layer in every:
        others = {other: "fp16" for other in every if other != layer}
        data = exporter.quantize(original, scheme.name, ranges, others)
        error = float(np.abs(scores(kind(data, shape=windows.window.shape[1:])) - right).mean())
        harm.append(error if np.isfinite(error) else np.inf)
    return sorted(every, key=lambda layer: -harm[layer])
