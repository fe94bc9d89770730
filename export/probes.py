"""Inputs at which files break that are right on all normal windows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from export.windows import Windows

__all__ = ["probe_windows"]

Float64 = npt.NDArray[np.float64]

WINDOWS = 4
"""Windows of each kind."""

OFFSET = 1e5
"""Beyond the largest float16."""

SMALL = 1e-3
LARGE = 10.0


def _range_of(size: float) -> Callable[[Float64], Float64]:
    def squeeze(window: Float64) -> Float64:
        middle = window.mean(axis=1, keepdims=True)
        span = np.ptp(window, axis=1, keepdims=True)
        small: Float64 = middle + (window - middle) * (size / np.where(span > 0, span, 1))
        return small

    return squeeze


def _stretched(window: Float64) -> Float64:
    middle = window.mean(axis=1, keepdims=True)
    large: Float64 = middle + LARGE * (window - middle)
    return large


def _constant(window: Float64) -> Float64:
    return np.broadcast_to(window.mean(axis=1, keepdims=True), window.shape)


CHANGES: dict[str, Callable[[Float64], Float64]] = {
    f"an offset of {OFFSET:g}": lambda window: window + OFFSET,
    f"a range of {SMALL:g}": _range_of(SMALL),
    "ten times the range": _stretched,
    "constant values": _constant,
    "no observed point": np.zeros_like,
}


def probe_windows(normal: Windows) -> dict[str, Windows]:
    """Probes by what messages call them, each of a few windows."""
    base = normal.take(WINDOWS)
    probes = {}
    for name, change in CHANGES.items():
        window = change(base.window.astype(np.float64)).astype(np.float32)
        observed = np.zeros_like(window) if name == "no observed point" else np.ones_like(window)
        probes[name] = Windows(window, observed)
    return probes
