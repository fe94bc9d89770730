"""Which layers of a net cost the most when they are quantized, found by trying each on its own."""

from __future__ import annotations

import numpy as np

from edge_tsad.registry import BACKENDS
from edge_tsad.runtime.backends.base import DeviceBackend
from export.base import Exporter
from export.quantize import Scheme
from export.verify import Reference, run
from export.windows import Windows

__all__ = ["most_harmful"]

WINDOWS = 64
"""Windows that each layer is tried on, normal and distorted ones alike."""


def most_harmful(
    original: bytes, exporter: Exporter, scheme: Scheme, ranges: Windows, reference: Reference
) -> list[int]:
    """Positions in ``exporter.layers``, the worst first.

    Each layer alone is quantized by ``scheme`` while all others compute in float32; what counts is
    the mean error of the score as a stream uses it.

    Args:
        original: the float32 file.
        exporter: its format.
        scheme: how layers are quantized.
        ranges: windows that ranges of activations are taken from.
        reference: windows and the float model's answers.
    """
    kind: type[DeviceBackend] = BACKENDS[next(iter(exporter.runtimes))]
    chosen = np.linspace(0, len(reference.windows) - 1, WINDOWS).astype(int)
    windows = Windows(reference.windows.window[chosen], reference.windows.observed[chosen])
    right = reference.as_streamed(reference.outputs["score"][chosen])
    every = range(len(exporter.layers(original)))
    harm = []
    for layer in every:
        others = {other: "fp16" for other in every if other != layer}
        data = exporter.quantize(original, scheme.name, ranges, others)
        score = run(kind(data, shape=windows.window.shape[1:]), windows)["score"]
        error = float(np.abs(reference.as_streamed(score) - right).mean())
        harm.append(error if np.isfinite(error) else np.inf)
    return sorted(every, key=lambda layer: -harm[layer])
