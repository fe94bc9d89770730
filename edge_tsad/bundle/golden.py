"""Golden windows: proof, on the very machine, that a model file computes what it computed at home.

The file is an NPZ of ``window`` f32[n, T, C], ``observed`` f32[n, T, C] and ``score`` f32[n, T],
the float model's own answer. Two things are compared: how far each score is off (``Bounds`` say how
far it may be), and on which side of ``Bounds.level`` each point lies. The second is no consequence
of the first: near the level a score may be off by half of its bound only.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge_tsad.bundle.container import pack, unpack
from edge_tsad.errors import BundleError
from edge_tsad.types import FloatArray

if TYPE_CHECKING:
    from edge_tsad.bundle.archive import Bundle
    from edge_tsad.bundle.manifest import Bounds, Manifest, ModelFile
    from edge_tsad.runtime.backends.base import Backend

__all__ = ["GoldenWindows", "SelfTest", "self_test"]


@dataclass(frozen=True, slots=True)
class GoldenWindows:
    """``window`` and ``observed`` f32[n, T, C], ``score`` f32[n, T] of the float model."""

    window: FloatArray
    observed: FloatArray
    score: FloatArray

    def to_bytes(self) -> bytes:
        """The NPZ file; equal arrays give equal bytes."""
        arrays = {"window": self.window, "observed": self.observed, "score": self.score}
        members = {
            f"{name}.npy": npy_header(array.shape) + np.ascontiguousarray(array, "<f4").tobytes()
            for name, array in arrays.items()
        }
        return pack(members)

    @classmethod
    def of(cls, bundle: Bundle) -> GoldenWindows:
        """Those of ``bundle``.

        Raises:
            BundleError: they are damaged.
        """
        return cls.from_bytes(bundle.read(bundle.manifest.golden.path), bundle.manifest)

    @classmethod
    def from_bytes(cls, data: bytes, manifest: Manifest) -> GoldenWindows:
        """The windows in ``data``, of exactly the shapes that ``manifest`` implies.

        Raises:
            BundleError: it is no such NPZ, or a number in it is not finite.
        """
        where = manifest.golden.path
        n, t, c = manifest.golden.count, manifest.timing.window, len(manifest.channels)
        shapes = {"observed": (n, t, c), "score": (n, t), "window": (n, t, c)}
        members = unpack(data, where)
        if set(members) != {f"{name}.npy" for name in shapes}:
            raise BundleError(f"{where}: its arrays are not window, observed and score")
        return cls(
            **{
                name: read_array(bytes(members[f"{name}.npy"]), shape, f"{where}: {name}")
                for name, shape in shapes.items()
            }
        )


def npy_header(shape: tuple[int, ...]) -> bytes:
    """The header of a float32 NPY 1.0; written here because numpy's own differs by its version."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape!r}, }}"
    text = text.ljust(-(len(text) + 11) % 64 + len(text)) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode("ascii")


def read_array(data: bytes, shape: tuple[int, ...], where: str) -> FloatArray:
    """A finite f32 array of a known shape; nothing is parsed, since only one header is right."""
    header = npy_header(shape)
    if not data.startswith(header) or len(data) != len(header) + 4 * math.prod(shape):
        raise BundleError(f"{where}: is no NPY of float32 of the shape {shape}")
    array = np.frombuffer(data, "<f4", offset=len(header)).reshape(shape).astype(np.float32)
    if not np.isfinite(array).all():
        raise BundleError(f"{where}: holds numbers that are not finite")
    return array


@dataclass(frozen=True, slots=True)
class SelfTest:
    """How a model file did on its golden windows.

    ``worst`` is the largest deviation as a multiple of what is allowed (1 = just within bounds);
    ``flipped`` counts windows with a point that is clearly above the level for one and below it for
    the other: deviations that would have changed alerts;
    ``problem`` says in a sentence why it did not pass, and is empty where it did.
    """

    file: str
    backend: str
    windows: int
    worst: float
    flipped: int
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether every score is within its bounds and every clear decision is the same."""
        return not self.problem


def self_test(bundle: Bundle, file: ModelFile, backend: Backend) -> SelfTest:
    """Run the golden windows of ``bundle`` through ``backend``, which holds ``file``.

    Raises:
        BundleError: the golden windows themselves are damaged.
        BackendError: the backend cannot run the file at all.
    """
    golden = GoldenWindows.of(bundle)
    score = run(golden, backend)
    n = len(golden.score)
    if score is None:
        problem = "its scores have another shape than the float model's, or are not finite"
        return SelfTest(file.path, backend.name, n, math.inf, n, problem)
    worst, flipped = compare(score, golden.score, bundle.manifest.golden.bounds[file.path])
    problem = ""
    if worst > 1:
        problem = (
            f"a score is {worst:.3g} times as far from the float model as allowed, "
            f"and {flipped} of {n} golden windows are decided otherwise"
        )
    elif flipped:
        problem = (
            f"its scores are within their bounds (the worst at {worst:.2g} of them), and yet "
            f"{flipped} of {n} golden windows are decided otherwise"
        )
    return SelfTest(file.path, backend.name, n, worst, flipped, problem)


def run(golden: GoldenWindows, backend: Backend) -> FloatArray | None:
    """Scores f32[n, T] in batches that the backend takes; None where they are none."""
    step = max(1, backend.max_batch)
    score = np.empty_like(golden.score)
    for i in range(0, len(score), step):
        part = backend.score(golden.window[i : i + step], golden.observed[i : i + step])["score"]
        if part.shape != score[i : i + step].shape or not np.isfinite(part).all():
            return None
        score[i : i + step] = part
    return score


def compare(score: FloatArray, reference: FloatArray, bounds: Bounds) -> tuple[float, int]:
    """The worst deviation as a multiple of the bound, and the number of windows decided otherwise.

    A point that is nearer to the level than half of its bound is left out of the second: either
    decision is right there. At home the same file was off by no more than that (the bounds are at
    least twice what was seen there), so it decided every other point as the float model did.
    """
    allowed = bounds.absolute + bounds.relative * np.abs(reference)
    deviation = np.abs(score.astype(np.float64) - reference)
    # A bound of nothing is met by equality only.
    ratios = np.where(deviation > 0, deviation / np.maximum(allowed, 1e-30), 0.0)
    clear = np.abs(reference - bounds.level) > allowed / 2
    flipped = ((reference >= bounds.level) != (score >= bounds.level)) & clear
    return float(ratios.max()), int(flipped.any(axis=1).sum())
