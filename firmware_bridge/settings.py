"""``agent.toml``: what the owner of a gateway decides about its updates; all of it is optional."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from edge_tsad.decode import decode
from edge_tsad.errors import ConfigError
from edge_tsad.files import read_limited

__all__ = ["ChannelSettings", "Room", "Settings", "load_settings"]

MOST_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """A channel that the gateway delivers."""

    name: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Room:
    """The bytes that one file may have at most, and those that must be left free beside it."""

    limit: int
    reserve: int


@dataclass(frozen=True, slots=True)
class Settings:
    """The content of ``agent.toml``.

    ``name`` and ``channels`` are what a bundle must be for; where they are not given they are those
    of the bundle that is active. ``trial_s`` is how long a candidate is scored beside the active
    bundle, ``trial_memory_mb`` how much memory it may add and ``trial_load`` the part of the time
    between two windows that it may take for one. ``reserve_mb`` is what an update leaves free,
    ``data`` is the runtime's data folder, from which history and alerts may be fetched.
    ``keep`` how many committed bundles are kept, ``inbox`` the folders of cards and sticks that are
    looked into every ``scan_s`` seconds.
    """

    name: str = ""
    channels: tuple[ChannelSettings, ...] = ()
    trial_s: float = 600.0
    trial_memory_mb: float = 96.0
    trial_load: float = 0.25
    max_mb: float = 64.0
    reserve_mb: float = 8.0
    keep: int = 3
    inbox: tuple[str, ...] = ()
    scan_s: float = 5.0
    data: str = "/var/lib/edge-tsad"

    def __post_init__(self) -> None:
        for label in ("trial_s", "trial_memory_mb", "trial_load", "max_mb", "scan_s"):
            if getattr(self, label) <= 0:
                raise ConfigError(f"{label}: {getattr(self, label)} is not above 0")
        if self.reserve_mb < 0:
            raise ConfigError(f"reserve_mb: {self.reserve_mb} is negative")
        if not 2 <= self.keep <= 100:
            raise ConfigError(f"keep: {self.keep} is not in 2…100")

    @property
    def room(self) -> Room:
        """What a file may take up."""
        return Room(int(self.max_mb * 1e6), int(self.reserve_mb * 1e6))


def load_settings(path: Path) -> Settings:
    """The settings in a file; the defaults where there is none.

    Raises:
        ConfigError: it cannot be read or holds something unknown; the message names the key path.
    """
    if not path.exists():
        return Settings()
    try:
        table = tomllib.loads(read_limited(path, MOST_BYTES, ConfigError).decode("utf-8"))
        return decode(Settings, table, "", ConfigError)
    except ValueError as e:
        raise ConfigError(f"{path}: is no TOML: {e}") from e
    except ConfigError as e:
        raise ConfigError(f"{path}: {e}") from e
