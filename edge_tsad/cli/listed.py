"""``@FILE``: values of an option from a file, one a line."""

from __future__ import annotations

from pathlib import Path

from edge_tsad.errors import ConfigError

__all__ = ["lines_of"]


def lines_of(value: str, option: str) -> list[str]:
    """``value`` itself, or the lines of the file in ``@FILE``; empty and ``#`` lines are none.

    Raises:
        ConfigError: the file cannot be read as text, or has no such line.
    """
    if not value.startswith("@"):
        return [value]
    path = Path(value[1:])
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(f"{option}: {path} cannot be read: {reason}") from error
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise ConfigError(f"{option}: {path} has no line; give one value a line")
    return found
