"""The gateway's configuration: one TOML file, read strictly.

::

    site = "plant-1"
    device = "gateway-7"
    budget = "1/7d"                 # false alarms of the whole gateway, split over its streams

    [broker]
    url = "mqtt://localhost:1883"

    [[streams]]
    name = "press-3"
    bundle = "press-1.0.0.tsad"
    source = { type = "csv", path = "press-3.csv", speed = 10 }

Relative paths are taken from the file's folder. Every mistake is a :class:`ConfigError` that starts
with the key path, such as ``streams[2].bundle``.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_tsad.broker import (
    BrokerConfig,
    CommandsConfig,
    HomeAssistantConfig,
    check_positive,
)
from edge_tsad.decode import Decoder
from edge_tsad.errors import ConfigError
from edge_tsad.files import read_limited
from edge_tsad.registry import BACKENDS, SOURCES
from edge_tsad.runtime.health import HealthSettings
from edge_tsad.runtime.limits import LimitSettings
from edge_tsad.runtime.sources.base import SourceOptions
from edge_tsad.types import Channel

__all__ = [
    "BrokerConfig",
    "ConfigDecoder",
    "GatewayConfig",
    "HistoryConfig",
    "OutboxConfig",
    "ServiceConfig",
    "SourceConfig",
    "StateConfig",
    "StreamConfig",
    "load_config",
    "parse_config",
]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
LARGEST_FILE = 1 << 20
LARGEST_PORT = 65_535


def check_name(name: str, where: str) -> None:
    """Refuse what cannot be one level of a topic and one folder."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{where}: {name!r} is not 1 to 64 letters, digits, '_', '.' or '-' that begin with a "
            "letter or digit"
        )


@dataclass(frozen=True, slots=True)
class OutboxConfig:
    """Bounds of the queue of alerts; ages count only the time that the machine was powered on.

    Acknowledged alerts are kept for ``retention_days`` so that they can be sent again, as long as
    the other bounds leave room.
    """

    max_rows: int = 100_000
    max_mb: float = 64.0
    max_age_days: float = 90.0
    retention_days: float = 7.0

    def __post_init__(self) -> None:
        check_positive(self, "outbox", "max_rows", "max_mb", "max_age_days")
        if self.retention_days < 0:
            raise ConfigError(f"outbox.retention_days: {self.retention_days} is negative")


@dataclass(frozen=True, slots=True)
class StateConfig:
    """How often ring buffers and sums go to storage.

    Every ``interval_s``, or less often where that would write more than ``budget_mb_per_day``.
    """

    interval_s: float = 60.0
    budget_mb_per_day: float = 100.0

    def __post_init__(self) -> None:
        check_positive(self, "state", "interval_s", "budget_mb_per_day")


@dataclass(frozen=True, slots=True)
class HistoryConfig:
    """Bounds of the recording of each stream; a crash costs at most the last ``sync_s`` seconds."""

    max_mb: float = 256.0
    sync_s: float = 60.0

    def __post_init__(self) -> None:
        check_positive(self, "history", "sync_s")
        if self.max_mb < 0.1:
            raise ConfigError(f"history.max_mb: {self.max_mb} is less than 0.1")


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """The gateway as a service.

    ``max_rss_mb``: when its memory grows beyond this, it saves its state and begins anew; 0: never.
    ``metrics_port``: where Prometheus finds its figures on 127.0.0.1; 0: nowhere.
    """

    max_rss_mb: float = 0.0
    metrics_port: int = 0

    def __post_init__(self) -> None:
        if self.max_rss_mb < 0:
            raise ConfigError(f"service.max_rss_mb: {self.max_rss_mb} is negative")
        if not 0 <= self.metrics_port <= LARGEST_PORT:
            raise ConfigError(f"service.metrics_port: {self.metrics_port} is no port")


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """Where samples come from: the name of a source and its own options."""

    type: str
    options: SourceOptions


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """One stream: a source, judged by a bundle.

    ``budget`` is its own alarm budget instead of its part of the gateway's. ``sensitivity`` is what
    the budget is multiplied by, ``lateness_s`` how long a sample may come late, ``backend`` one
    inference runtime instead of the best that there is. ``record`` keeps a history beside the
    scoring. A stream without a bundle can only be recorded: ``step_s`` is then its grid, and
    ``channels`` are those that the source cannot tell by itself.
    """

    name: str
    source: SourceConfig
    bundle: str = ""
    channels: tuple[Channel, ...] = ()
    step_s: float = 0.0
    record: bool = False
    health: HealthSettings = field(default_factory=HealthSettings)
    budget: str = ""
    sensitivity: float = 1.0
    lateness_s: float = 0.0
    backend: str = ""
    threads: int = 1

    def __post_init__(self) -> None:
        check_name(self.name, "stream.name")
        check_positive(self, "stream", "sensitivity", "threads")
        if self.bundle and (self.channels or self.step_s):
            key = "channels" if self.channels else "step_s"
            raise ConfigError(f"stream.{key}: comes from the bundle; leave it out")
        if not self.bundle and self.step_s <= 0:
            raise ConfigError(
                "stream.bundle: is missing; a stream without one is only recorded and needs step_s"
            )
        if self.lateness_s < 0:
            raise ConfigError(f"stream.lateness_s: {self.lateness_s} is negative")
        if self.backend and self.backend not in tuple(BACKENDS):
            raise ConfigError(f"stream.backend: must be one of {', '.join(BACKENDS)}")

    def at(self, folder: Path) -> StreamConfig:
        """The same with relative paths taken from ``folder``."""
        source = SourceConfig(self.source.type, self.source.options.at(folder))
        bundle = self.bundle and str(folder / self.bundle)
        return dataclasses.replace(self, bundle=bundle, source=source)


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Everything one gateway process needs to know.

    ``data_dir`` holds the outbox and the state; when empty it is a folder for this site and device
    below ``$XDG_STATE_HOME`` (``~/.local/state``). An empty ``budget`` is one opening in 7 days, or
    in 10,000 points for a bundle without a rate.
    """

    site: str
    device: str
    streams: tuple[StreamConfig, ...]
    data_dir: str = ""
    budget: str = ""
    broker: BrokerConfig = field(default_factory=BrokerConfig)
    outbox: OutboxConfig = field(default_factory=OutboxConfig)
    state: StateConfig = field(default_factory=StateConfig)
    history: HistoryConfig = field(default_factory=HistoryConfig)
    service: ServiceConfig = field(default_factory=ServiceConfig)
    alerts: LimitSettings = field(default_factory=LimitSettings)
    commands: CommandsConfig = field(default_factory=CommandsConfig)
    home_assistant: HomeAssistantConfig = field(default_factory=HomeAssistantConfig)

    def __post_init__(self) -> None:
        check_name(self.site, "gateway.site")
        check_name(self.device, "gateway.device")
        if not self.streams:
            raise ConfigError("gateway.streams: is empty; add a [[streams]] table")
        names = [stream.name for stream in self.streams]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise ConfigError(
                    f"streams[{i}].name: {name!r} is already the name of "
                    f"streams[{names.index(name)}]"
                )

    @property
    def folder(self) -> Path:
        """Where the outbox and the state are kept."""
        if self.data_dir:
            return Path(self.data_dir)
        base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return Path(base) / "edge-tsad" / self.site / self.device

    def at(self, folder: Path) -> GatewayConfig:
        """The same with every relative path taken from ``folder``."""
        return dataclasses.replace(
            self,
            streams=tuple(stream.at(folder) for stream in self.streams),
            data_dir=self.data_dir and str(folder / self.data_dir),
            broker=self.broker.at(folder),
        )


class ConfigDecoder(Decoder):
    """The strict conversion; a source's keys are those of its options, a channel may be a name."""

    def __init__(self) -> None:
        super().__init__(ConfigError)

    def value(self, kind: Any, data: object, where: str) -> object:
        """``data`` as ``kind``."""
        if kind is Channel and isinstance(data, str):
            return self.call(Channel, lambda: Channel(self.text(data, where)), where)
        return (
            self.source(data, where) if kind is SourceConfig else super().value(kind, data, where)
        )

    def source(self, data: object, where: str) -> SourceConfig:
        """A table with ``type`` and the keys that this source knows."""
        table = self.mapping(data, where)
        kind = table.get("type")
        if not isinstance(kind, str) or kind not in tuple(SOURCES):
            raise self.wrong(f"{where}.type", f"must be one of {', '.join(SOURCES)}")
        rest = {key: value for key, value in table.items() if key != "type"}
        options: Any = self.dataclass(SOURCES[kind].Options, rest, where)
        return SourceConfig(kind, options)


def parse_config(text: str, folder: Path) -> GatewayConfig:
    """The configuration in ``text``, its relative paths taken from ``folder``.

    Raises:
        ConfigError: it is no TOML, or a key is missing, unknown or wrong.
    """
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as e:
        raise ConfigError(f"is no TOML: {e}") from e
    config = ConfigDecoder().dataclass(GatewayConfig, data, "")
    assert isinstance(config, GatewayConfig)
    return config.at(folder)


def load_config(path: Path) -> GatewayConfig:
    """The configuration in the file ``path``.

    Raises:
        ConfigError: it cannot be read or is wrong; the message names the file and the key path.
    """
    data = read_limited(path, LARGEST_FILE, ConfigError)
    try:
        return parse_config(data.decode("utf-8-sig"), path.absolute().parent)
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: is no UTF-8 text") from e
    except ConfigError as e:
        raise ConfigError(f"{path}: {e}") from e
