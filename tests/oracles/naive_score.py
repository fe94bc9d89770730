"""The stream score by its definition: whole arrays, float64, loops; slow and independent.

It shares nothing with ``edge_tsad.runtime``. A point is one dictionary entry, a mean is a sum over
a list, and nothing is carried from one point to the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

WindowScore = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
"""f32[T, C] window and mask → score [T], channel_score [T, C] and perhaps expected [T, C]."""


@dataclass
class NaiveScores:
    """Emitted points in their order; float64."""

    index: np.ndarray
    score: np.ndarray
    channel_score: np.ndarray
    expected: np.ndarray | None
    values: np.ndarray
    observed: np.ndarray


def segments(index: np.ndarray, window: int) -> list[tuple[int, int]]:
    """(first, last) grid index of each run without ``window`` or more missing points."""
    runs: list[list[int]] = []
    for k in index.tolist():
        if runs and k - runs[-1][1] - 1 < window:
            runs[-1][1] = k
        else:
            runs.append([k, k])
    return [(first, last) for first, last in runs]


def naive_scores(
    index: np.ndarray,
    values: np.ndarray,
    observed: np.ndarray,
    window_score: WindowScore,
    *,
    window: int,
    hop: int,
    delay: int,
    smoothing: int,
    period: int,
) -> NaiveScores:
    """Every point that a stream with these cells has emitted once its last cell has arrived.

    Args:
        index: i64[n] strictly increasing.
        values: f32[n, C].
        observed: f32[n, C].
        window_score: scores one window.
        window: T.
        hop: H.
        delay: D.
        smoothing: S.
        period: points.
    """
    channels = values.shape[1]
    at = {k: i for i, k in enumerate(index.tolist())}
    half = smoothing // 2
    emitted: list[tuple[int, float, np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]] = []
    for first, last in segments(index, window):
        points: dict[int, np.ndarray] = {}
        masks: dict[int, np.ndarray] = {}
        carried = np.zeros(channels, np.float32)
        for k in range(first, last + 1):
            mask = observed[at[k]] if k in at else np.zeros(channels, np.float32)
            if k in at:
                carried = np.where(mask > 0, values[at[k]], carried)
            points[k], masks[k] = carried, mask
        outputs = {}
        for e in range(first + window - 1, last + 1):
            if (e + 1) % hop == 0:
                span = range(e - window + 1, e + 1)
                outputs[e] = window_score(
                    np.stack([points[k] for k in span]), np.stack([masks[k] for k in span])
                )

        def mean(k: int, name: str, outputs: dict = outputs) -> np.ndarray:
            ends = [e for e in range(k, k + delay - half + 1) if (e + 1) % hop == 0]
            parts = [np.asarray(outputs[e][name], np.float64)[window - 1 - (e - k)] for e in ends]
            return sum(parts) / len(parts)

        for k in range(first + window - 1, last - delay + 1):
            near = range(max(k - half, first + window - 1), k + half + 1)
            score = sum(mean(j, "score") for j in near) / len(near)
            channel_score = sum(mean(j, "channel_score") for j in near) / len(near)
            has_expected = "expected" in next(iter(outputs.values()))
            newest = range(max(k + delay - period + 1, first), k + delay + 1)
            seen = sum(float(masks[j].sum()) for j in newest)
            if seen < period * channels / 2:
                score = math.nan
            expected = mean(k, "expected") if has_expected else None
            emitted.append((k, score, channel_score, expected, points[k], masks[k]))
    empty = np.zeros((0, channels))
    if not emitted:
        return NaiveScores(np.zeros(0, np.int64), np.zeros(0), empty, empty, empty, empty)
    columns = list(zip(*emitted, strict=True))
    has_expected = columns[3][0] is not None
    return NaiveScores(
        np.array(columns[0]),
        np.array(columns[1], np.float64),
        np.stack(columns[2]),
        np.stack(columns[3]) if has_expected else None,
        np.stack(columns[4]),
        np.stack(columns[5]),
    )
