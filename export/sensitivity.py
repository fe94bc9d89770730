"""What quantization costs, measured before the gate: for choosing ranges and layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_tsad.registry import BACKENDS
from edge_tsad.runtime.backends.base import Backend, DeviceBackend
from export.base import Exporter
from export.gate import Gate
from export.quantize import Scheme
from export.verify import Reference, run
from export.windows import Windows

__all__ = ["Sensitivity"]

WINDOWS = 64
"""Normal windows that files are tried on, and as many of the stream that alerts are compared on.
Simulated anomalies like those that ranges are taken from do not do: on the stronger ones of that
stream ranges end, and on SKAB the layer that cost most there was among the harmless here."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The mean error of a file's scores as a stream uses them, on few windows.

    How far a score is beyond a unit above the threshold does not matter. ``right`` f64[n, m] are
    the float model's scores of the n ``windows`` at the m points that a stream uses.
    """

    exporter: Exporter
    reference: Reference
    windows: Windows
    right: npt.NDArray[np.float64]

    @classmethod
    def of(cls, exporter: Exporter, gate: Gate) -> Sensitivity:
        """The float model's answers on some of the windows that ``gate`` tries files on."""
        reference = gate.reference
        normal = reference.windows.first(reference.normal).take(WINDOWS)
        strange = gate.stream.windows(reference.timing.window, WINDOWS)
        windows = Windows.join([normal, strange])
        right = _scores(gate.subject.backend, windows, reference)
        return cls(exporter, reference, windows, right)

    def error(self, model: bytes) -> float:
        """Of a file, in units of score; infinite where one of its scores is not finite."""
        kind: type[DeviceBackend] = BACKENDS[next(iter(self.exporter.runtimes))]
        backend = kind(model, shape=self.windows.window.shape[1:])
        error = float(np.abs(_scores(backend, self.windows, self.reference) - self.right).mean())
        return error if np.isfinite(error) else np.inf

    def ranges_by_cost(
        self, original: bytes, scheme: Scheme, candidates: tuple[Windows, ...]
    ) -> list[Windows]:
        """``candidates``, those first whose ranges cost least with all layers quantized."""

        def error(ranges: Windows) -> float:
            return self.error(self.exporter.quantize(original, scheme.name, ranges))

        return sorted(candidates, key=error)

    def most_harmful(self, original: bytes, scheme: Scheme, ranges: Windows) -> list[int]:
        """Positions in ``exporter.layers``, the worst first.

        Each layer alone is quantized by ``scheme`` while all others compute in float32.

        Args:
            original: the float32 file.
            scheme: how layers are quantized.
            ranges: windows that ranges of activations are taken from.
        """
        every = range(len(self.exporter.layers(original)))
        harm = []
        for layer in every:
            others = {other: "fp16" for other in every if other != layer}
            harm.append(self.error(self.exporter.quantize(original, scheme.name, ranges, others)))
        return sorted(every, key=lambda layer: -harm[layer])


def _scores(backend: Backend, windows: Windows, reference: Reference) -> npt.NDArray[np.float64]:
    score = reference.as_streamed(run(backend, windows)["score"])
    return np.minimum(score, reference.threshold + reference.unit)
