"""How much work a fit may take, as a share of the usual."""

from __future__ import annotations

from edge_tsad.errors import ConfigError

__all__ = ["FAST", "MOST", "THOROUGH", "check_effort"]

FAST = 0.25
"""For a first look at a history."""

THOROUGH = 3.0
"""For one that will be relied on for long."""

MOST = 10.0


def check_effort(effort: float, detector: str) -> None:
    """Raises `ConfigError` unless 0 < ``effort`` ≤ ``MOST``."""
    if not 0 < effort <= MOST:
        raise ConfigError(f"{detector}.effort: {effort:g} is not above 0 and at most {MOST:g}")
