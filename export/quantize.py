"""The quantization schemes: what they are called and how far a file may be from the detector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_tsad.errors import ExportError
from edge_tsad.types import FloatArray

__all__ = ["LEAST_WEIGHTS", "SCHEMES", "Scheme", "layer_shape", "on_int8_grid", "scheme_named"]

LEAST_WEIGHTS = 1024
"""Layers with fewer weights stay float32: they hold little and decide much. On CoAD they are the
reconstruction and the heads, a tenth of the file; quantizing them too took the error of scores from
.01–.08 to .12–.20 units."""

GRID_SLACK = 1e-4
"""Distance from a step of the grid, in steps, that is rounding of float32."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way to store and compute the weights.

    Errors are |Δscore| between the file on the device's runtime and the detector in torch, in units
    of ``threshold − median normal score``.

    Attributes:
        name: what it is asked for by.
        label: what its files are called by.
        bound: the error allowed at the 99.9th percentile of all points of the normal windows.
        exact: whether it holds for every point of every window, distorted ones included.
        across: how much the scores of one file may differ between runtimes and processors.
        across_relative: how much more, as a share of the score itself.
        probe: error of the highest score of a probe window, as a share of it and the unit together;
            where a file is not exact it does not matter how far both are beyond the threshold.
        distorted: error of the scores of distorted windows at the 99th percentile, as a share of
            the score and a unit: ranges of ``static`` end where calibration did, and large
            anomalies must not look small.
        mixed: whether all large layers but one may compute in float32, those first that cost the
            most, until a file passes.
        ranged: whether the ranges of activations are fixed in the file.
        instead: the scheme that is taken where this one is refused; empty if there is none.
    """

    name: str
    label: str
    bound: float
    exact: bool
    across: float
    across_relative: float
    probe: float
    distorted: float
    mixed: bool = False
    ranged: bool = False
    instead: str = ""


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme(
            "none",
            "fp32",
            1e-3,
            exact=True,
            across=1e-3,
            across_relative=1e-4,
            probe=1e-3,
            distorted=1e-3,
        ),
        Scheme("fp16", "fp16", 0.02, False, 1e-3, 1e-4, 0.02, 0.02),
        # Quantized activations cost most where the normal is nearly free of noise and the unit
        # small; weights alone then keep the size, and on nets this small the speed is the same.
        Scheme(
            "dynamic", "int8", 0.10, False, 0.05, 0.01, 0.25, 0.25, mixed=True, instead="weights"
        ),
        Scheme("static", "int8s", 0.10, False, 0.02, 0.01, 0.25, 0.25, mixed=True, ranged=True),
        Scheme("weights", "int8w", 0.10, False, 0.05, 0.01, 0.25, 0.25),
    )
}


def scheme_named(name: str) -> Scheme:
    """The scheme called ``name``.

    Raises:
        ExportError: there is none; the sentence lists those there are.
    """
    if name not in SCHEMES:
        raise ExportError(f"quantization {name!r} is unknown; known are {', '.join(SCHEMES)}")
    return SCHEMES[name]


def layer_shape(inputs: int, outputs: int) -> str:
    """What a layer is called: tensors of a final file have no names."""
    return f"{inputs}→{outputs}"


def on_int8_grid(weights: FloatArray, axis: int) -> bool:
    """Whether int8 holds ``weights`` exactly, with a scale for each index along ``axis``.

    Such layers are stored so in every scheme and compute in float32: that loses nothing, while
    quantized activations, or even float16, would cost just what they were put on the grid for.
    """
    largest = np.abs(weights).max(axis=1 - axis, keepdims=True)
    scaled = weights / (np.maximum(largest, 1e-30) / np.float32(127))
    return bool(np.abs(scaled - np.rint(scaled)).max() < GRID_SLACK)
