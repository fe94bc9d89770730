"""Spans of time as people write them."""

from __future__ import annotations

import re

from edge_tsad.errors import ConfigError
from edge_tsad.types import NANOSECONDS

__all__ = ["duration_ns"]

UNITS_S = {"ms": 1e-3, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def duration_ns(text: str | None, option: str) -> int | None:
    """``"250ms"``, ``"1s"``, ``"10m"``, ``"1h"`` in nanoseconds.

    Raises:
        ConfigError: it is no positive duration.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip())
    if not match or match[2] not in UNITS_S or float(match[1]) <= 0:
        raise ConfigError(f'{option}: {text!r} is no duration such as "250ms", "1s", "10m" or "1h"')
    return round(float(match[1]) * UNITS_S[match[2]] * NANOSECONDS)
