"""The end of a history that is kept from the fit, so that exported files are tried on unseen data.

Where the history is too short to give something away, or its end goes beyond what came before, all
of it is fitted to and the end merely serves a second time: a detector that never saw a state of
operation would cost more than the trial is worth.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edge_tsad.training.series import Segment, Series

__all__ = ["Reserved", "reserve"]

SHARE = 10
"""One part in so many of a history is held out …"""

LEAST_WINDOWS, MOST_WINDOWS = 2, 32
"""… but this many windows' worth at least and at most …"""

LEAST_FITTED = 8
"""… and only where this many windows' worth remain to fit to."""

BEYOND = 0.1
"""How far the end may exceed what came before, as a share of its range."""


class Reserved(NamedTuple):
    """``fitted``: what to fit to; ``held_out``: a stretch; ``unseen``: whether that is no part."""

    fitted: Series
    held_out: Segment
    unseen: bool


def reserve(history: Series, window: int) -> Reserved:
    """Divide ``history``, which has a stretch of ``window`` points, at its end."""
    count = int(np.clip(len(history) // SHARE, LEAST_WINDOWS * window, MOST_WINDOWS * window))
    rest = len(history) - count
    if rest >= LEAST_FITTED * window:
        fitted, end = history.part(0, rest), history.part(rest, len(history))
        stretch = _longest(end, window)
        if (
            len(stretch) >= LEAST_WINDOWS * window
            and len(_longest(fitted, window)) >= LEAST_FITTED * window
            and _within(end, fitted)
        ):
            return Reserved(fitted, stretch, True)
    longest = _longest(history, window)
    tail = slice(max(0, len(longest) - count), None)
    return Reserved(history, Segment(longest.values[tail], longest.observed[tail]), False)


def _longest(history: Series, window: int) -> Segment:
    return max(history.segments(window), key=len, default=Segment(*2 * (history.values[:0],)))


def _within(end: Series, fitted: Series) -> bool:
    """Whether all channels of ``end`` stay about where they were before."""
    for new, old in zip(end.values.T, fitted.values.T, strict=True):
        new, old = new[~np.isnan(new)], old[~np.isnan(old)]  # noqa: PLW2901
        if not len(new):
            continue
        if not len(old):
            return False
        slack = BEYOND * float(np.ptp(old))
        if new.min() < old.min() - slack or new.max() > old.max() + slack:
            return False
    return True
