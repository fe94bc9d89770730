from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_tsad.decode import Json, canonical_json, decode, encode, parse_json
from edge_tsad.errors import BundleError, ConfigError
from edge_tsad.types import Channel, Timing


@dataclass(frozen=True)
class Stream:
    name: str
    channels: tuple[Channel, ...] = ()
    timing: Timing | None = None
    factor: float = 1.0
    limits: dict[str, int] = field(default_factory=dict)
    pair: tuple[int, str] = (1, "a")
    kind: Literal["csv", "mqtt"] = "csv"
    size: int | str = 0
    live: bool = False
    free: Json = None


@dataclass(frozen=True)
class Config:
    streams: tuple[Stream, ...]


def refusal(stream: dict[str, object]) -> str:
    with pytest.raises(ConfigError) as caught:
        decode(Config, {"streams": [stream]}, "", ConfigError)
    return str(caught.value)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({}, "streams[0].name: is missing"),
        ({"name": "a", "chanels": []}, "streams[0].chanels: is not a known key; did you mean"),
        ({"name": "a", "\x1b[2J": 1}, "streams[0].'\\x1b[2J': is not a known key"),
        ({"name": 3}, "streams[0].name: is 3; text is needed"),
        ({"name": "\ud800"}, "streams[0].name: holds half of a surrogate pair"),
        ({"name": "a", "factor": True}, "streams[0].factor: is True; a number is needed"),
        ({"name": "a", "factor": float("nan")}, "streams[0].factor: is nan; a finite number"),
        ({"name": "a", "factor": float("inf")}, "streams[0].factor: is inf; a finite number"),
        ({"name": "a", "factor": 10**400}, "streams[0].factor: is a whole number beyond 64 bits"),
        ({"name": "a", "factor": "1"}, "streams[0].factor: is '1'; a number is needed"),
        ({"name": "a", "live": 1}, "streams[0].live: is 1; true or false is needed"),
        ({"name": "a", "limits": {"x": 1.0}}, "streams[0].limits.x: is 1.0; a whole number"),
        ({"name": "a", "limits": {"x": True}}, "streams[0].limits.x: is True; a whole number"),
        ({"name": "a", "limits": {1: 1}}, "streams[0].limits: has the key 1, which is no text"),
        ({"name": "a", "limits": []}, "streams[0].limits: is a list; a table"),
        ({"name": "a", "pair": [1]}, "streams[0].pair: has 1 entries instead of 2"),
        ({"name": "a", "pair": "1a"}, "streams[0].pair: is '1a'; a list is needed"),
        ({"name": "a", "kind": "udp"}, "streams[0].kind: is 'udp'; it must be one of csv, mqtt"),
        ({"name": "a", "kind": []}, "streams[0].kind: is a list; it must be one of csv, mqtt"),
        ({"name": "a", "size": []}, "streams[0].size: is a list; text is needed"),
        ({"name": "a", "free": {"x": [float("nan")]}}, "streams[0].free.x[0]: is nan; a finite"),
        ({"name": "a", "free": {1, 2}}, "streams[0].free: is a set, which is no JSON"),
        ({"name": "a", "channels": [{"name": "q", "hold": -1}]}, "streams[0].channels[0].hold: -1"),
        ({"name": "a", "timing": {"step_ns": 0}}, "streams[0].timing.window: is missing"),
    ],
)
def test_a_refusal_starts_with_the_key_path(given_: dict[str, object], message: str) -> None:
    assert refusal(given_).startswith(message)


def test_free_json_may_not_be_nested_without_end() -> None:
    deep: list[object] = []
    for _ in range(200):
        deep = [deep]
    assert "is nested deeper than 32 levels" in refusal({"name": "a", "free": deep})


def test_a_prefix_is_put_before_every_path() -> None:
    with pytest.raises(BundleError, match=r"^gateway\.toml\.streams: is missing$"):
        decode(Config, {}, "gateway.toml", BundleError)
    with pytest.raises(BundleError, match=r"^is a list; a table"):
        decode(Config, [], "", BundleError)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Node:
    label: str
    weight: float
    count: int
    parts: tuple[str, ...] = ()
    facts: dict[str, int | float | str | None] = field(default_factory=dict)


numbers = st.integers(-(2**63) + 1, 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(codec="utf-8"))


@given(
    st.builds(
        Node,
        words,
        floats,
        numbers,
        st.tuples(words),
        st.dictionaries(words, numbers | floats | words | st.none()),
    )
)
def test_what_is_written_is_read_back(node: Node) -> None:
    data = canonical_json(encode(node))
    again = decode(Node, parse_json(data, "node", BundleError), "", BundleError)
    assert again == node
    assert canonical_json(encode(again)) == data
    assert data.isascii()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from([f.name for f in dataclasses.fields(Stream)]), json_values))
def test_any_json_is_an_object_or_a_sentence(data: dict[str, object]) -> None:
    try:
        decode(Stream, data, "", ConfigError)
    except ConfigError as e:
        assert "\n" not in str(e)
        assert str(e).isprintable()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1, "a": 2}', "has the key 'a' twice"),
        (b"[NaN]", "holds NaN"),
        (b"[-Infinity]", "holds -Infinity"),
        (b"\xff", "is no JSON text"),
        (b"", "is no JSON text"),
        (b"1" * 5000, "is no JSON text"),
        (b"[" * 100_000, "is nested too deeply"),
    ],
)
def test_json_is_read_strictly(data: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        parse_json(data, "manifest.json", BundleError)
    assert str(caught.value).startswith("manifest.json: ")


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_a_sentence(data: bytes) -> None:
    try:
        parse_json(data, "it", BundleError)
    except BundleError as e:
        assert str(e).isprintable()


def test_canonical_json_refuses_what_is_not_finite() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json([float("nan")])
