"""The timing of a detector, from its history alone: every choice is a constant here, with why."""

from __future__ import annotations

import numpy as np

from edge_tsad.errors import ConfigError, DataError
from edge_tsad.training.period import Period, dominant_period
from edge_tsad.training.series import Segment, Series
from edge_tsad.types import Timing

__all__ = ["MINIMUM_HISTORY", "history_period", "plan_timing"]

PERIODS = 4
"""Periods in a window, as in CoAD (arXiv 2605.26193)."""

SHORTEST_WINDOW = 64
SHORT_PERIOD_WINDOW = 256
"""A window of four short periods has too few patches to show what is normal; it takes as many
periods as reach this length."""

LONGEST_WINDOW = 1024
"""Longer periods are seen in part: a gateway has to hold and score the window, and a fit to see
enough of them."""

HISTORY_WINDOWS = 3
"""The history must hold this many windows end to end, or the window is shortened."""

MINIMUM_HISTORY = HISTORY_WINDOWS * SHORTEST_WINDOW
"""Points of history without which nothing can be fitted."""

DELAY_SHARE = 3 / 16
"""D as a share of the window: three quarters of one period of four. The shortest that ranks as
well as a whole period does on the series for choosing (benchmarks/delay.md)."""

HOPS = 8
"""Window ends within the delay: a point's score is the mean over about as many windows."""

SMOOTHING_SHARE = 1 / 8
"""S as a share of the window: half a period. On the series for choosing a quarter found as many
peaks but ranked worse (benchmarks/ucr-tune.md)."""


def plan_timing(
    history: Series,
    *,
    multiple: int,
    window: int | None = None,
    max_delay: int | None = None,
) -> Timing:
    """T, H, D and S for ``history``.

    Args:
        history: what the detector will be fitted to.
        multiple: T is a multiple of this many points.
        window: T itself, instead of four dominant periods.
        max_delay: the longest D allowed, in points; H and S shrink with it.

    Raises:
        DataError: the history is too short, without values or constant.
        ConfigError: ``window`` or ``max_delay`` is out of range.
    """
    segment = _longest(history)
    period = history_period(history)
    if window is None:
        window = _window(period.points, len(segment), multiple)
    elif window % multiple or not SHORTEST_WINDOW <= window <= len(segment) // 2:
        raise ConfigError(
            f"window: {window} is not a multiple of {multiple} from {SHORTEST_WINDOW} up to half "
            f"of the longest stretch of history, {len(segment) // 2}"
        )
    if max_delay is not None and max_delay < 0:
        raise ConfigError(f"max_delay: {max_delay} is negative")
    delay = round(DELAY_SHARE * window)
    if max_delay is not None:
        delay = min(delay, max_delay)
    # Both shrink with the delay, so that D ≥ H − 1 + ⌊S/2⌋ always holds.
    half = min(round(SMOOTHING_SHARE * window) // 2, delay // 2)
    return Timing(
        step_ns=history.step_ns,
        window=window,
        hop=max(1, delay // HOPS),
        delay=delay,
        smoothing=2 * half + 1,
        period=min(period.points, window),
        has_rate=history.has_rate,
    )


def history_period(history: Series) -> Period:
    """The dominant period of the longest stretch of ``history`` without a long gap."""
    segment = _longest(history)
    return dominant_period(np.where(segment.observed > 0, segment.values, np.float32(np.nan)))


def _longest(history: Series) -> Segment:
    """The longest stretch, if it can be used at all."""
    values = history.values
    if np.isnan(values).all():
        raise DataError(f"{history.name}: has no values at all; give a history with measurements")
    if not np.any(np.nanmax(values, axis=0) > np.nanmin(values, axis=0)):
        raise DataError(
            f"{history.name}: is constant ({np.nanmin(values):g}), so nothing can be learned from "
            "it; give a history in which something happens"
        )
    segment = max(history.segments(LONGEST_WINDOW), key=len)
    if len(segment) < MINIMUM_HISTORY:
        raise DataError(
            f"{history.name}: {len(segment)} points of history are too few; at least "
            f"{MINIMUM_HISTORY} in a row are needed, and some thousands are better"
        )
    return segment


def _window(period: int, available: int, multiple: int) -> int:
    target = PERIODS * period
    if target < SHORT_PERIOD_WINDOW:
        target = -(-SHORT_PERIOD_WINDOW // period) * period
    most = min(LONGEST_WINDOW, available // HISTORY_WINDOWS)
    return max(min(target, most), SHORTEST_WINDOW) // multiple * multiple
