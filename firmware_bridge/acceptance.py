"""Whether a bundle is meant for this gateway: its name, its channels and its counter."""

from __future__ import annotations

from edge_tsad.bundle import Manifest
from edge_tsad.errors import BundleError, SignatureError
from firmware_bridge.settings import Settings

__all__ = ["require_fit"]

MOST_LETTERS = 200


def require_fit(
    manifest: Manifest, settings: Settings, floor: int, current: Manifest | None
) -> None:
    """Refuse a bundle that is for another place, or older than the floor.

    Args:
        manifest: of the candidate, whose signature was verified.
        settings: what the gateway's owner decided.
        floor: least counter that is accepted.
        current: manifest of the active bundle; None where there is none.

    Raises:
        SignatureError: its counter is below ``floor``.
        BundleError: it has another name or other channels.
    """
    if manifest.counter < floor:
        raise SignatureError(
            f"the bundle is older than allowed: its counter is {manifest.counter}, the least "
            f"accepted here is {floor}"
        )
    name = settings.name or (current.name if current else "")
    if name and manifest.name != name:
        raise BundleError(
            f"the bundle is for {manifest.name!r}, this gateway is for {name!r} (name in agent.toml"
            " changes that)"
        )
    wanted = [(channel.name, channel.unit) for channel in settings.channels]
    if not wanted and current:
        wanted = [(channel.name, channel.unit) for channel in current.channels]
    given = [(channel.name, channel.unit) for channel in manifest.channels]
    if wanted and given != wanted:
        raise BundleError(
            f"the bundle's channels are {channels(given)}, this gateway's are {channels(wanted)} "
            "(channels in agent.toml changes that)"
        )


def channels(pairs: list[tuple[str, str]]) -> str:
    """Channels in a sentence."""
    text = ", ".join(f"{name} [{unit}]" if unit else name for name, unit in pairs)
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…"
