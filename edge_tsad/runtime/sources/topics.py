"""MQTT messages as values of channels: which topic and which key of a JSON object is which."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from paho.mqtt.client import topic_matches_sub

from edge_tsad.runtime.sources.columns import TIME_NAMES, parse_number, parse_time_ns
from edge_tsad.runtime.sources.lines import number

__all__ = ["TopicMap", "check_filter", "wildcards"]

DEEPEST = 16


class TopicMap:
    """Finds the values in a message.

    ``mapped`` maps topic filters to a channel, or to a table of keys (``"a.b"`` is ``b`` in ``a``)
    and their channels. Messages of ``topic`` name their channels themselves: a number by what its
    wildcards stand for, else by its last level; an object by its keys, alone or after what the
    wildcards stand for (``kitchen.temperature``). ``time`` is the key of a time stamp; without it a
    usual name is looked for.
    """

    def __init__(
        self,
        channels: Sequence[str],
        topic: str,
        mapped: Mapping[str, str | Mapping[str, str]],
        time: str = "",
    ) -> None:
        self.positions = {name: position for position, name in enumerate(channels)}
        self.topic, self.mapped, self.time = topic, mapped, time

    def read(self, topic: str, payload: bytes) -> tuple[int | None, dict[int, float]]:
        """Time in nanoseconds (None: it has none) and values by position; NaN is missing.

        Raises:
            ValueError, OverflowError, RecursionError: the message is no number and no JSON, or says
                something of a channel that is no number.
        """
        content = parse(payload)
        values: dict[int, float] = {}
        for where, target in self.mapped.items():
            if topic_matches_sub(where, topic):
                values.update(self._mapped(content, target))
        if self.topic and topic_matches_sub(self.topic, topic):
            values.update(self._named(topic, content))
        return self._time(content), values

    def _mapped(
        self, content: object, target: str | Mapping[str, str]
    ) -> Iterator[tuple[int, float]]:
        if isinstance(target, str):
            value = content.get("value") if isinstance(content, Mapping) else content
            yield self.positions[target], number(value)
            return
        if not isinstance(content, Mapping):
            raise ValueError("a JSON object is expected")
        for path, channel in target.items():
            found = look_up(content, path)
            if found is not None:
                yield self.positions[channel], number(found)

    def _named(self, topic: str, content: object) -> Iterator[tuple[int, float]]:
        wild = wildcards(self.topic, topic)
        if not isinstance(content, Mapping):
            for name in (wild, topic.rpartition("/")[2]):
                if name in self.positions:
                    yield self.positions[name], number(content)
                    return
            return
        for path, value in leaves(content):
            for name in (f"{wild}.{path}", path):
                if name in self.positions:
                    yield self.positions[name], number(value)
                    break

    def _time(self, content: object) -> int | None:
        if not isinstance(content, Mapping):
            return None
        names = (self.time,) if self.time else TIME_NAMES
        found = next((v for name in names if (v := look_up(content, name)) is not None), None)
        return None if found is None else parse_time_ns(str(found))


def parse(payload: bytes) -> object:
    """A number, or what JSON says; numbers in quotes are numbers."""
    text = payload.decode("utf-8").strip()
    try:
        return parse_number(text)
    except ValueError:
        content = json.loads(text)
    return parse_number(content) if isinstance(content, str) else content


def look_up(content: object, path: str) -> object:
    """What the dotted ``path`` leads to; a key may hold dots itself."""
    if isinstance(content, Mapping):
        if path in content:
            return content[path]
        first, dot, rest = path.partition(".")
        if dot and first in content:
            return look_up(content[first], rest)
    return None


def leaves(
    content: Mapping[str, object], path: str = "", depth: int = 0
) -> Iterator[tuple[str, object]]:
    """All values that are no tables, with their dotted paths."""
    for key, value in content.items():
        where = f"{path}.{key}" if path else key
        if not isinstance(value, Mapping):
            yield where, value
        elif depth < DEEPEST:
            yield from leaves(value, where, depth + 1)


def wildcards(where: str, topic: str) -> str:
    """What the wildcards of the filter ``where`` stand for in ``topic``, joined by ``/``."""
    levels, found = topic.split("/"), []
    for i, part in enumerate(where.split("/")):
        if part == "#":
            found += levels[i:]
        elif part == "+":
            found.append(levels[i])
    return "/".join(found)


def check_filter(where: str) -> str:
    """Why ``where`` is no topic filter; empty if it is one."""
    levels = where.split("/")
    if not where or "\0" in where or len(where.encode("utf-8", "replace")) > 65_535:
        return "is empty or too long"
    if any("#" in level and level != "#" for level in levels) or "#" in levels[:-1]:
        return "has a '#' that is not its last level"
    if any("+" in level and level != "+" for level in levels):
        return "has a '+' that is not a whole level"
    return ""
