"""Anomalies for a stream of normal operation, in rounds whose severity may be raised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_tsad.training.distortion import KINDS, Kind, distort
from edge_tsad.training.series import Segment
from edge_tsad.types import FloatArray, PolicySettings, Timing

__all__ = ["EVENTS", "Injector", "strong_kinds"]

EVENTS = 80
"""Anomalies in a round."""

STRENGTH = (0.3, 8.0)
"""Spikes and shifts of severity 1, in ranges of the stretch."""

SPIKE_SHARE = 8
"""A spike of severity 1 lasts one part in so many of an anomaly."""


@dataclass(frozen=True, slots=True)
class _Jump:
    """The first ``share`` of an anomaly lies ``severity`` times ``STRENGTH`` away."""

    severity: float
    share: float

    def __call__(
        self, series: FloatArray, start: int, span: int, rng: np.random.Generator
    ) -> FloatArray:
        # As likely to be doubled as to be halved.
        ranges = self.severity * float(np.exp(rng.uniform(*np.log(STRENGTH))))
        far = float(rng.choice((-1, 1))) * ranges * float(np.ptp(series))
        segment: FloatArray = series[start : start + span].copy()
        segment[: max(1, round(self.share * span))] += np.float32(far)
        return segment


def strong_kinds(severity: float) -> Mapping[str, Kind]:
    """The kinds that a classifier may have learnt from, which have no strength, and two others."""
    share = min(1.0, severity / SPIKE_SHARE)
    jumps: dict[str, Kind] = {"spike": _Jump(severity, share), "shift": _Jump(severity, 1.0)}
    return jumps if severity > 1 else {**KINDS, **jumps}


class Injector:
    """Normal operation over and over, with an anomaly in each stretch of it.

    It is repeated in whole periods; what remains of a joint is one more event for all who see it.

    Args:
        held_out: normal operation.
        timing: of the model.
        settings: of the alerts, which must end before the next anomaly.
        seed: equal seeds and severities give equal rounds.
    """

    def __init__(
        self, held_out: Segment, timing: Timing, settings: PolicySettings, seed: int
    ) -> None:
        self._held_out, self._period = held_out, timing.period
        # An anomaly lies anywhere in two periods. After that the windows that it is in the middle
        # of pass, and quiet points enough for its alert to end.
        self._busy = 2 * timing.period
        quiet = timing.window // 2 + settings.resolve_after + settings.cooldown
        self._spacing = self._busy + quiet
        whole = max(len(held_out) // timing.period, 1) * timing.period
        self._whole = min(whole, len(held_out))
        self._rng = np.random.default_rng(seed)
        self._next = 0

    def round(self, severity: float) -> FloatArray:
        """The next stretches f32[EVENTS, n, C], an anomaly in each, NaN where values miss."""
        points = EVENTS * self._spacing
        turns = (self._next + np.arange(points)) % self._whole
        self._next += points
        # Simulated on the filled values: statistics of a window with NaN would all be NaN.
        values, seen = self._held_out.values[turns], self._held_out.observed[turns]
        stretches = values.reshape(EVENTS, self._spacing, -1)
        busy = stretches[:, : self._busy]
        stretches[:, : self._busy] = distort(
            busy, self._period, self._rng, strong_kinds(severity)
        ).values
        return np.where(seen.reshape(stretches.shape) > 0, stretches, np.float32(np.nan))
