"""Strict conversion of parsed JSON or TOML into frozen dataclasses, and back into canonical JSON.

What comes from outside becomes either an object of exactly the declared types or one sentence that
starts with the key path: nothing is guessed, coerced or ignored. An unknown key is an error, a
``bool`` is no number, an ``int`` may stand where a ``float`` is asked for, and no number is NaN,
infinite or beyond 64 bits.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING
from typing import Any, Literal, NoReturn, TypeAlias, TypeVar

from edge_tsad.errors import EdgeTsadError

__all__ = ["Json", "canonical_json", "decode", "encode", "parse_json"]

Json: TypeAlias = Any
"""Whatever JSON can hold; as the type of a field it means "kept as it is, numbers finite"."""

T = TypeVar("T")
LARGEST_INT = 2**63 - 1
DEEPEST = 32
PLAIN_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
OWN_NAME = re.compile(r"^[a-z_]+\.(?=[a-z_.\[\]0-9]+: )")
FIRST_KEY = re.compile(r"[a-z_]+(?=[.:\[])")


def decode(cls: type[T], data: Mapping[str, object], where: str, error: type[EdgeTsadError]) -> T:
    """``data`` as an instance of the dataclass ``cls``.

    Fields may be ``bool``, ``int``, ``float``, ``str``, ``Json``, ``Literal``, ``X | Y``,
    ``X | None``, ``tuple[X, ...]``, ``tuple[X, Y]``, ``dict[str, X]`` and dataclasses of these; a
    class with a ``from_json`` reads its own part. A field with a default may be left out.

    Args:
        cls: the dataclass.
        data: what the parser of JSON or TOML gave.
        where: key path of ``data``, put before every path in a message; ``""`` for a document.
        error: the class of every error.

    Raises:
        EdgeTsadError: as ``error``: something is missing, unknown, of another type or out of
            range. Errors that ``cls`` raises itself become ``error`` too, with the whole key path.
    """
    return typing.cast(T, Decoder(error).dataclass(cls, data, where))


class Decoder:
    """The conversion of one document; each method takes a value and its key path."""

    def __init__(self, error: type[EdgeTsadError]) -> None:
        self.error = error

    def wrong(self, where: str, problem: str) -> EdgeTsadError:
        return self.error(f"{where}: {problem}" if where else problem)

    def value(self, kind: Any, data: object, where: str) -> object:
        """``data`` as ``kind``, which is a type or a type expression."""
        readers: dict[object, Callable[[tuple[Any, ...], object, str], object]] = {
            Literal: self.literal,
            typing.Union: self.union,
            types.UnionType: self.union,
            tuple: self.array,
            dict: self.table,
        }
        origin = typing.get_origin(kind)
        if origin in readers:
            return readers[origin](typing.get_args(kind), data, where)
        if kind is Any or kind is object:
            return self.anything(data, where)
        if hasattr(kind, "from_json"):
            return self.call(kind, lambda: kind.from_json(self.mapping(data, where)), where)
        if dataclasses.is_dataclass(kind):
            return self.dataclass(kind, data, where)
        return self.scalar(kind, data, where)

    def dataclass(self, cls: Any, data: object, where: str) -> object:
        given = self.mapping(data, where)
        hints = type_hints(cls)
        fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
        for key in given:
            if key not in fields:
                hint = suggestion(key, list(fields))
                raise self.wrong(join(where, key), "is not a known key" + hint)
        arguments = {}
        for name, field in fields.items():
            if name in given:
                arguments[name] = self.value(hints[name], given[name], join(where, name))
            elif field.default is MISSING and field.default_factory is MISSING:
                raise self.wrong(join(where, name), "is missing")
        return self.call(cls, lambda: cls(**arguments), where)

    def call(self, cls: Any, construct: Callable[[], object], where: str) -> object:
        """What ``construct`` gives; a path in its error, ``hop: …`` or ``timing.hop: …``, grows."""
        try:
            return construct()
        except EdgeTsadError as e:
            message = str(e)
            if not starts_with_key(message, cls):
                message = OWN_NAME.sub("", message, count=1)
            if where and starts_with_key(message, cls):
                raise self.error(f"{where}.{message}") from e
            raise self.wrong(where, message) from e

    def mapping(self, data: object, where: str) -> Mapping[str, object]:
        if not isinstance(data, Mapping):
            raise self.wrong(where, f"is {describe(data)}; a table of keys and values is needed")
        for key in data:
            if not isinstance(key, str):
                raise self.wrong(where, f"has the key {shorten(key)}, which is no text")
        return data

    def array(self, kinds: tuple[Any, ...], data: object, where: str) -> object:
        if not isinstance(data, Sequence) or isinstance(data, str | bytes):
            raise self.wrong(where, f"is {describe(data)}; a list is needed")
        if kinds[-1] is Ellipsis:
            kinds = (kinds[0],) * len(data)
        elif len(kinds) != len(data):
            raise self.wrong(where, f"has {len(data)} entries instead of {len(kinds)}")
        pairs = enumerate(zip(kinds, data, strict=True))
        return tuple(self.value(kind, item, f"{where}[{i}]") for i, (kind, item) in pairs)

    def table(self, kinds: tuple[Any, ...], data: object, where: str) -> object:
        entries = self.mapping(data, where).items()
        return {
            self.text(key, where): self.value(kinds[1], v, join(where, key)) for key, v in entries
        }

    def literal(self, allowed: tuple[Any, ...], data: object, where: str) -> object:
        for choice in allowed:
            if type(choice) is type(data) and choice == data:
                return choice
        choices = ", ".join(map(str, allowed))
        raise self.wrong(where, f"is {describe(data)}; it must be one of {choices}")

    def union(self, kinds: tuple[Any, ...], data: object, where: str) -> object:
        if data is None and types.NoneType in kinds:
            return None
        rest = [kind for kind in kinds if kind is not types.NoneType]
        for kind in rest[:-1]:
            try:
                return self.value(kind, data, where)
            except self.error:
                continue
        return self.value(rest[-1], data, where)

    def scalar(self, kind: Any, data: object, where: str) -> object:
        if kind is bool and isinstance(data, bool):
            return data
        if kind is str and isinstance(data, str):
            return self.text(data, where)
        if kind is int and isinstance(data, int) and not isinstance(data, bool):
            return self.number(data, where)
        if kind is float and isinstance(data, int | float) and not isinstance(data, bool):
            return float(self.number(data, where))
        names = {bool: "true or false", str: "text", int: "a whole number", float: "a number"}
        if kind not in names:
            raise TypeError(f"{where}: decode cannot make a {kind!r}")
        raise self.wrong(where, f"is {describe(data)}; {names[kind]} is needed")

    def number(self, data: int | float, where: str) -> int | float:
        if isinstance(data, float) and not math.isfinite(data):
            raise self.wrong(where, f"is {data}; a finite number is needed")
        if isinstance(data, int) and abs(data) > LARGEST_INT:
            raise self.wrong(where, "is a whole number beyond 64 bits")
        return data

    def text(self, data: str, where: str) -> str:
        if any("\ud800" <= letter <= "\udfff" for letter in data):
            raise self.wrong(where, "holds half of a surrogate pair, which is no character")
        return data

    def anything(self, data: object, where: str, depth: int = 0) -> object:
        """A checked copy of JSON of any shape."""
        if depth > DEEPEST:
            raise self.wrong(where, f"is nested deeper than {DEEPEST} levels")
        if data is None or isinstance(data, bool):
            return data
        if isinstance(data, str):
            return self.text(data, where)
        if isinstance(data, int | float):
            return self.number(data, where)
        if isinstance(data, Mapping):
            entries = self.mapping(data, where).items()
            return {
                self.text(k, where): self.anything(v, join(where, k), depth + 1) for k, v in entries
            }
        if isinstance(data, list | tuple):
            return [self.anything(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(data)]
        raise self.wrong(where, f"is {describe(data)}, which is no JSON")


def encode(value: object) -> Json:
    """Dataclasses, tuples and dicts as plain JSON; a class with ``to_json`` writes its own part."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if dataclasses.is_dataclass(value):
        return {
            field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return value


def canonical_json(value: Json) -> bytes:
    """The one spelling of a JSON value: sorted keys, no blanks, ASCII, a line feed at the end.

    Raises:
        ValueError: a number is NaN or infinite.
        TypeError: something in it is no JSON.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii") + b"\n"


def parse_json(data: bytes, where: str, error: type[EdgeTsadError]) -> Json:
    """JSON text in UTF-8, without the liberties that :mod:`json` takes.

    Raises:
        EdgeTsadError: as ``error``: it is no JSON, has a key twice, holds NaN or Infinity, or is
            nested too deeply.
    """

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        table = dict(items)
        if len(table) != len(items):
            keys = [key for key, _ in items]
            twice = next(key for key in table if keys.count(key) > 1)
            raise error(f"{where}: has the key {shorten(twice)} twice")
        return table

    def constant(text: str) -> NoReturn:
        raise error(f"{where}: holds {text}; only finite numbers are allowed")

    try:
        text = data.decode("utf-8")
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except RecursionError as e:
        raise error(f"{where}: is nested too deeply") from e
    except ValueError as e:  # JSONDecodeError, UnicodeDecodeError, a number of thousands of digits
        raise error(f"{where}: is no JSON text: {shorten(str(e), 120)}") from e


@functools.cache
def type_hints(cls: type) -> dict[str, Any]:
    """The resolved annotations of a dataclass."""
    return typing.get_type_hints(cls)


def starts_with_key(message: str, cls: type) -> bool:
    """Whether ``message`` starts with the path of a field of ``cls``."""
    first = FIRST_KEY.match(message)
    return first is not None and first[0] in type_hints(cls)


def join(where: str, key: object) -> str:
    """The path of ``key`` below ``where``; an odd key is quoted and cut: it may be hostile."""
    name = key if isinstance(key, str) and PLAIN_KEY.fullmatch(key) else shorten(key)
    return f"{where}.{name}" if where else name


def shorten(data: object, length: int = 60) -> str:
    """``data`` quoted so that it fits into a sentence and cannot command a terminal."""
    text = ascii(data[: length + 1] if isinstance(data, str) else data)
    return text if len(text) <= length else text[: length - 1] + "…"


def describe(data: object) -> str:
    """What ``data`` is, in words for a message."""
    if data is None:
        return "empty (null)"
    if isinstance(data, int) and data.bit_length() > 64:  # perhaps too long to be written out
        return "a whole number beyond 64 bits"
    if isinstance(data, bool | int | float | str):
        return shorten(data)
    if isinstance(data, Mapping):
        return "a table"
    if isinstance(data, Sequence):
        return "a list"
    return f"a {type(data).__name__}"


def suggestion(key: str, known: list[str]) -> str:
    """``; did you mean …?`` where a known key is near, else the keys there are."""
    near = difflib.get_close_matches(key[:64], known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known here: {', '.join(known)}"
