"""Golden windows: synthetic inputs with known scores, by which a gateway tests itself.

They never hold the history itself. Each starts as a phase-randomised surrogate of a window of the
history (Theiler et al., Physica D 58, 1992): same mean and spectrum, other course. Some are then
calmed by the detector, which puts in their place what it would have expected (so they tell no more
than the detector itself does), some get a simulated anomaly, and some lose points: their scores lie
on both sides of what normal windows reach.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_tsad.bundle.golden import GoldenWindows
from edge_tsad.bundle.manifest import Bounds
from edge_tsad.runtime.backends.base import Backend
from edge_tsad.training.distortion import distort
from edge_tsad.types import FloatArray
from export.quantize import Scheme
from export.verify import run
from export.windows import Windows, lose

__all__ = ["golden_bounds", "make_golden", "surrogates"]

CANDIDATES = 6
"""Windows that are made for each one that is kept."""

CALMING = 4
"""Times that a detector's expectation takes the place of a window."""


def surrogates(windows: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Phase-randomised copies of ``windows`` f32[n, T, C]: equal mean, spectrum and cross-spectrum.

    All channels of a window turn by the same angle at each frequency, which keeps what they have in
    common.
    """
    points = windows.shape[1]
    spectrum = np.fft.rfft(windows.astype(np.float64), axis=1)
    angle = rng.uniform(0, 2 * np.pi, spectrum.shape[:2])
    # The mean and, in an even window, the highest frequency have no phase to turn.
    angle[:, 0] = 0
    if points % 2 == 0:
        angle[:, -1] = 0
    turned = spectrum * np.exp(1j * angle)[:, :, None]
    return np.fft.irfft(turned, points, axis=1).astype(np.float32)


def make_golden(
    backend: Backend, history: Windows, period: int, *, count: int = 16, seed: int = 0
) -> tuple[GoldenWindows, float]:
    """``count`` synthetic windows with the detector's own scores, and a level between them.

    The level is the highest score of the normal windows, or the nearest score to it that leaves a
    quarter of the candidates on either side. It is where decisions about golden windows are
    compared, and no alert threshold: that one applies to scores averaged over windows.

    Args:
        backend: the float model.
        history: normal windows, from which only means and spectra are taken.
        period: the dominant period in points, by which anomalies are sized.
        count: how many to keep, half of them below the level.
        seed: equal seeds give equal windows.
    """
    rng = np.random.default_rng(seed)
    candidates = _candidates(backend, history.window, period, count, rng)
    score = run(backend, candidates)["score"]
    peak = score.max(axis=1)
    normal = float(run(backend, history)["score"].max())
    level = float(np.clip(normal, *np.quantile(peak, [0.25, 0.75])))
    order = np.argsort(peak, kind="stable")
    below, above = order[peak[order] < level], order[peak[order] >= level]
    kept = [*_spread(below, count // 2), *_spread(above, count - count // 2)]
    return GoldenWindows(candidates.window[kept], candidates.observed[kept], score[kept]), level


def _spread(positions: npt.NDArray[np.int64], count: int) -> list[int]:
    return [int(positions[round(i)]) for i in np.linspace(0, len(positions) - 1, count)]


def _candidates(
    backend: Backend, windows: FloatArray, period: int, count: int, rng: np.random.Generator
) -> Windows:
    """``CANDIDATES`` · ``count`` windows: plain, calmed, distorted, with gaps."""
    total = CANDIDATES * count
    values = surrogates(windows[rng.integers(len(windows), size=total)], rng)
    observed = np.ones_like(values)
    values[0::2] = _calmed(backend, values[0::2])
    values[1::4] = distort(values[1::4], period, rng).values
    points = values.shape[1]
    for row in range(0, total, 3):
        start = int(rng.integers(points // 2))
        lose(values[row], observed[row], slice(start, start + points // 8))
    return Windows(values, observed)


def _calmed(backend: Backend, values: FloatArray) -> FloatArray:
    observed = np.ones_like(values)
    for _ in range(CALMING):
        values = run(backend, Windows(values, observed)).get("expected", values)
    return values


def golden_bounds(
    scheme: Scheme, golden: GoldenWindows, score: FloatArray, *, level: float, unit: float
) -> Bounds:
    """How far a gateway's scores may be from the float model's.

    Twice as far as here, because a runtime that rounds otherwise errs as much in other places, and
    what exact files may differ by on top. Errors grow with the score, so they are allowed as a
    share of it and a unit together: what is far above any alarm widens no bound near the threshold.

    Args:
        scheme: of the file.
        golden: the windows and the float model's scores.
        score: the file's scores of the windows here, f32[n, T].
        level: score at which decisions are compared.
        unit: threshold − median normal score.
    """
    here = float((np.abs(score - golden.score) / (unit + np.abs(golden.score))).max())
    return Bounds(
        absolute=(2 * here + scheme.across) * unit,
        relative=2 * here + scheme.across_relative,
        level=level,
    )
