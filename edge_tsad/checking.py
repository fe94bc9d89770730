"""Everything that is wrong with a configuration, found before anything runs.

Reading a file for a run ends at its first mistake; here each is noted with its key path, and what
is right is tried: bundles are opened, models loaded, sources made, files read.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_tsad.config import (
    LARGEST_FILE,
    BrokerConfig,
    ConfigDecoder,
    GatewayConfig,
    StreamConfig,
)
from edge_tsad.decode import join, suggestion, type_hints
from edge_tsad.errors import ConfigError, EdgeTsadError
from edge_tsad.files import read_limited
from edge_tsad.registry import SOURCES
from edge_tsad.runtime.opening import OpenStream, StreamOpener
from edge_tsad.runtime.recording import timing_of
from edge_tsad.runtime.sinks.connection import make_client
from edge_tsad.types import NANOSECONDS

__all__ = ["Examination", "examine"]


@dataclass
class Examination:
    """``problems``: sentences that start with a key path. ``opened``: streams by position.

    ``config`` is None where the file itself is wrong.
    """

    problems: list[str] = field(default_factory=list)
    config: GatewayConfig | None = None
    opened: dict[int, OpenStream] = field(default_factory=dict)


class NotedError(ConfigError):
    """Something is wrong below this table, and has been noted."""


class Collector(ConfigDecoder):
    """The strict conversion, which goes on after a mistake; what it could make is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.streams: dict[str, StreamConfig] = {}
        self.broker: BrokerConfig | None = None

    def dataclass(self, cls: Any, data: object, where: str) -> object:
        """As the strict one, but every key is looked at before it gives up."""
        before = len(self.problems)
        given = self.mapping(data, where)
        fields = {each.name: each for each in dataclasses.fields(cls) if each.init}
        arguments: dict[str, object] = {}
        for key in given:
            if key not in fields:
                hint = suggestion(key, list(fields))
                self.note(self.wrong(join(where, key), "is not a known key" + hint))
        for name, each in fields.items():
            if name in given:
                kind = type_hints(cls)[name]
                self.attempt(arguments, name, kind, given[name], join(where, name))
            elif each.default is each.default_factory is dataclasses.MISSING:
                self.note(self.wrong(join(where, name), "is missing"))
        if len(self.problems) > before:
            raise NotedError(where)
        made = self.call(cls, lambda: cls(**arguments), where)
        self.keep(made, where)
        return made

    def array(self, kinds: tuple[Any, ...], data: object, where: str) -> object:
        """As the strict one, but every entry is looked at."""
        if kinds[-1] is not Ellipsis or not isinstance(data, list):
            return super().array(kinds, data, where)
        before = len(self.problems)
        made: dict[str, object] = {}
        for i, item in enumerate(data):
            self.attempt(made, str(i), kinds[0], item, f"{where}[{i}]")
        if len(self.problems) > before:
            raise NotedError(where)
        return tuple(made.values())

    def union(self, kinds: tuple[Any, ...], data: object, where: str) -> object:
        """As the strict one; what alternatives noted that do not apply is forgotten."""
        before = len(self.problems)
        made = super().union(kinds, data, where)
        del self.problems[before:]
        return made

    def attempt(
        self, into: dict[str, object], name: str, kind: Any, data: object, where: str
    ) -> None:
        try:
            into[name] = self.value(kind, data, where)
        except ConfigError as e:
            self.note(e)

    def note(self, error: EdgeTsadError) -> None:
        if not isinstance(error, NotedError):
            self.problems.append(str(error))

    def keep(self, made: object, where: str) -> None:
        if isinstance(made, StreamConfig):
            self.streams[where] = made
        elif isinstance(made, BrokerConfig) and where == "broker":
            self.broker = made


def examine(path: Path) -> Examination:
    """Read the file ``path`` and try all that it names. Nothing is written or connected to.

    Raises:
        ConfigError: it cannot be read or is no TOML at all.
    """
    try:
        data = tomllib.loads(read_limited(path, LARGEST_FILE, ConfigError).decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise ConfigError(f"{path}: is no TOML: {e}") from e
    folder = path.absolute().parent
    collector = Collector()
    found = Examination(collector.problems)
    try:
        made = collector.dataclass(GatewayConfig, data, "")
    except ConfigError as e:
        collector.note(e)
    else:
        assert isinstance(made, GatewayConfig)
        found.config = made.at(folder)
    streams = {where: stream.at(folder) for where, stream in collector.streams.items()}
    examine_streams(found, streams, str(data.get("budget", "")))
    if collector.broker is not None:
        broker = collector.broker.at(folder)
        attempt(found, "", lambda: make_client(broker, "check"))
    if found.config is not None:
        examine_folder(found, found.config.folder)
    return found


def examine_streams(found: Examination, streams: dict[str, StreamConfig], budget: str) -> None:
    """Open each stream that could be read."""
    if not streams:
        return
    spare = GatewayConfig("site", "device", distinct(tuple(streams.values())), budget=budget)
    opener = StreamOpener(found.config or spare)
    for position, (where, stream) in enumerate(streams.items()):
        if not stream.bundle:
            attempt(found, where, functools.partial(source_alone, stream))
            continue
        opened = attempt(found, where, functools.partial(opener.open, stream))
        if isinstance(opened, OpenStream):
            found.opened[position] = opened
        elif not Path(stream.bundle).is_file():  # its source has not been tried yet
            known = SOURCES[stream.source.type].known_channels
            attempt(found, f"{where}.source", functools.partial(known, stream.source.options))


def distinct(streams: tuple[StreamConfig, ...]) -> tuple[StreamConfig, ...]:
    """The streams under names of their own: a name given twice is noted already."""
    return tuple(
        dataclasses.replace(stream, name=f"stream-{i}") for i, stream in enumerate(streams)
    )


def source_alone(stream: StreamConfig) -> object:
    """The source of a stream that is only recorded."""
    kind = SOURCES[stream.source.type]
    channels = stream.channels or kind.known_channels(stream.source.options)
    if not channels:
        raise ConfigError(f"channels: the source {stream.source.type} cannot name them; give them")
    stream.health.check(channels)
    return kind(stream.source.options, channels, timing_of(round(stream.step_s * NANOSECONDS)))


def examine_folder(found: Examination, folder: Path) -> None:
    """Whether ``data_dir`` could be made and written; nothing is made."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        found.problems.append(f"data_dir: {there} is not a folder that this user can write to")


def attempt(found: Examination, where: str, step: Callable[[], object]) -> object:
    """What ``step`` gives; its mistake is noted under ``where``."""
    try:
        return step()
    except EdgeTsadError as e:
        separator = "" if not where else ": "
        found.problems.append(f"{where}{separator}{e}")
        return None
