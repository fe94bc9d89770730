"""The source mqtt: what messages mean, and a real broker that comes and goes."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Mosquitto
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt import client as paho

from edge_tsad.config import parse_config
from edge_tsad.errors import ConfigError, DataError
from edge_tsad.runtime.sources import mqtt
from edge_tsad.runtime.sources.base import Batch
from edge_tsad.runtime.sources.mqtt import MqttOptions, MqttSource
from edge_tsad.runtime.sources.topics import check_filter, wildcards
from edge_tsad.types import Channel, Timing

SECOND = 10**9
TIMING = Timing(SECOND, 4, 1, 0, 1, 4)
AB = (Channel("a"), Channel("b"))
NAN = math.nan


def source(
    topic: str = "",
    mapped: Any = None,
    channels: tuple[Channel, ...] = AB,
    timing: Timing = TIMING,
    **more: Any,
) -> MqttSource:
    return MqttSource(MqttOptions(topic, mapped or {}, **more), channels, timing)


def same(row: tuple[int, list[float]] | None, expected: list[float]) -> None:
    assert row is not None
    np.testing.assert_array_equal(row[1], expected)


@pytest.mark.parametrize(
    ("topic", "mapped", "where", "payload", "expected"),
    [
        ("plant/+", {}, "plant/a", b"1.5", [1.5, NAN]),
        ("plant/#", {}, "plant/x/b", b' "2" ', [NAN, 2]),
        ("plant/b", {}, "plant/b", b"3", [NAN, 3]),
        ("plant/pump", {}, "plant/pump", b'{"a": 1, "b": 2, "c": "x"}', [1, 2]),
        ("", {"p/+/x": "b"}, "p/7/x", b"4", [NAN, 4]),
        ("", {"p/x": "b"}, "p/x", b'{"value": 5}', [NAN, 5]),
        ("", {"p": {"d.t": "a", "u": "b"}}, "p", b'{"d": {"t": 6}, "u": 7}', [6, 7]),
        ("", {"p": {"d.t": "a"}}, "p", b'{"d.t": 8}', [8, NAN]),
        ("q/#", {"p": "a"}, "p", b"9", [9, NAN]),
        ("plant/+", {}, "plant/a", b"null", [NAN, NAN]),
    ],
)
def test_messages_and_what_they_mean(
    topic: str, mapped: Any, where: str, payload: bytes, expected: list[float]
) -> None:
    mapped = mapped and {**mapped, "other/a": "a", "other/b": "b"}
    made = source(topic, mapped)
    row = made.read(5 * SECOND, where, payload)
    assert row is not None and row[0] == 5 * SECOND and not made.complaints.counts
    same(row, expected)


def test_keys_of_several_senders_carry_what_the_wildcard_stands_for() -> None:
    channels = (Channel("kitchen.temperature"), Channel("bath.air.temperature"))
    made = source("home/+", channels=channels)
    same(made.read(0, "home/kitchen", b'{"temperature": 20}'), [20, NAN])
    same(made.read(0, "home/bath", b'{"air": {"temperature": 21}}'), [NAN, 21])
    assert made.read(0, "home/bath", b'{"temperature": 22}') is None


@pytest.mark.parametrize(
    ("payload", "seconds"),
    [
        (b'{"a": 1, "time": 7}', 7),
        (b'{"a": 1, "timestamp": "1970-01-01T00:00:08Z"}', 8),
        (b'{"a": 1, "t": 9000000000000}', 9_000_000_000),
        (b'{"a": 1}', 5),
    ],
)
def test_a_time_in_the_message_or_that_of_its_arrival(payload: bytes, seconds: int) -> None:
    row = source("x").read(5 * SECOND, "x", payload)
    assert row is not None and row[0] == seconds * SECOND


def test_the_time_may_have_a_key_of_its_own_and_without_a_rate_messages_are_counted() -> None:
    row = source("x", time="when.s").read(0, "x", b'{"a": 1, "when": {"s": 3}, "time": 7}')
    assert row is not None and row[0] == 3 * SECOND
    made = source("x", timing=Timing(SECOND, 4, 1, 0, 1, 4, has_rate=False))
    assert [made.read(99, "x", b'{"a": 1}') for _ in range(2)][1][0] == SECOND  # type: ignore[index]
    assert not made.live


@pytest.mark.parametrize(
    "payload",
    [
        b"on", b"\xff\xfe", b"{", b'{"a": "x"}', b'{"a": true}', b'{"a": [1]}', b"[" * 9000,
        b'{"a": 1, "time": "soon"}', b'{"a": ' + b"9" * 400 + b"}", b"x" * 70_000,
        b'{"a": 1, "time": 1e300}',
    ],
)  # fmt: skip
def test_malformed_and_huge_messages_are_counted_and_said_once(
    payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    made = source("x")
    for _ in range(3):
        assert made.read(0, "x", payload) is None
    assert made.complaints.counts == {"MALFORMED": 3} and len(caplog.records) == 1
    same(made.read(0, "x", b'{"a": 1}'), [1, NAN])


@settings(max_examples=300)
@given(st.text(max_size=20), st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_message_makes_the_parser_fail(topic: str, payload: bytes) -> None:
    made = source("x/#", {"+/y": {"a.b": "a"}, "z/#": "b"})
    for where in (topic, f"x/{topic}", "q/y", f"z/{topic}"):
        row = made.read(0, where, payload)
        assert row is None or len(row[1]) == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "time", "a.b", "", "."]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300)
@given(JSON)
def test_no_json_makes_the_parser_fail(content: object) -> None:
    made = source("x", {"x": {"a.b": "a", "a": "b"}})
    row = made.read(0, "x", json.dumps(content).encode())
    assert row is None or all(isinstance(value, float) for value in row[1])


def test_an_object_nested_beyond_reason_holds_nothing() -> None:
    assert source("x").read(0, "x", b'{"a":' * 2000 + b"1" + b"}" * 2000) is None


def test_filters_and_wildcards() -> None:
    assert [check_filter(where) for where in ("a/+/b", "#", "+", "a/#")] == [""] * 4
    assert all(check_filter(where) for where in ("", "a#", "#/a", "a+/b", "\0"))
    assert wildcards("a/+/b/#", "a/1/b/2/3") == "1/2/3"


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("", "streams[0].source.topic: is missing, and there is no map"),
        ('topic = "a/#/b"', "streams[0].source.topic: 'a/#/b' has a '#'"),
        ('map = {"a+" = "a"}', "streams[0].source.map: 'a+' has a '+'"),
        ('map = {"a" = 3}', "streams[0].source.map.a: "),
        ('topic = "a", broker.url = "mqtt://10.0.0.1"', "streams[0].source.broker.url: 10.0.0.1"),
    ],
)
def test_a_mistake_names_its_key_path(table: str, sentence: str, tmp_path: Path) -> None:
    text = (
        f'site="s"\ndevice="d"\n[[streams]]\nname="x"\nbundle="b"\nsource={{type="mqtt",{table}}}'
    )
    with pytest.raises(ConfigError) as caught:
        parse_config(text.replace(",}", "}"), tmp_path)
    assert str(caught.value).startswith(sentence)


def test_channels_that_nothing_leads_to_are_refused() -> None:
    with pytest.raises(DataError, match="map leads to no channel 'b'"):
        source("", {"x": "a"})
    with pytest.raises(DataError, match="map names 'c', which is none of"):
        source("", {"x": "c"})
    assert MqttSource.known_channels(MqttOptions("", {"x": "a", "y": {"k": "b"}})) == AB


# --- a real broker


class Reading:
    """A source read by a thread, and a publisher."""

    def __init__(self, port: int, **options: Any) -> None:
        self.source = MqttSource(MqttOptions(**options), AB, TIMING)
        self.batches: list[Batch] = []
        self.stop = threading.Event()
        self.port = port
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self) -> None:
        for batch in self.source.batches(self.stop):
            self.batches.append(batch)

    def rows(self) -> list[list[float]]:
        return [row for batch in list(self.batches) for row in batch.values.tolist()]

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(10)
        client.disconnect()
        client.loop_stop()

    def wait(self, count: int, limit_s: float = 20) -> None:
        end = time.monotonic() + limit_s
        while len(self.rows()) < count:
            assert time.monotonic() < end, self.rows()
            time.sleep(0.02)


@pytest.fixture
def reading(stopped_mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(mqtt, "FIRST_DELAY_S", 0.1)
    monkeypatch.setattr(mqtt, "LONGEST_DELAY_S", 0.2)
    made: list[Reading] = []

    def make(**options: Any) -> Reading:
        broker = mqtt.BrokerConfig(stopped_mosquitto.url, **options.pop("broker", {}))
        made.append(Reading(stopped_mosquitto.port, broker=broker, **options))
        return made[-1]

    yield make
    for each in made:
        each.stop.set()
        each.thread.join(15)
        assert not each.thread.is_alive()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_broker_that_comes_goes_and_comes_back(
    protocol: str, reading: Any, stopped_mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    broker = stopped_mosquitto
    each = reading(topic="plant/+", map={"x": {"v.b": "b"}}, broker={"protocol": protocol})
    end = time.monotonic() + 10
    while not each.source.complaints.active:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert each.source.complaints.active == {"DISCONNECTED"}
    broker.start()
    while each.source.complaints.active:
        time.sleep(0.02)
    each.publish("plant/a", b"1")
    each.publish("plant/a", b"junk")
    each.publish("x", b'{"v": {"b": 2}}')
    each.wait(2)
    broker.restart()
    while "no longer DISCONNECTED" not in caplog.text.partition("no longer")[2]:
        time.sleep(0.02)
    each.publish("plant/b", b"3")
    each.wait(3)
    np.testing.assert_array_equal(each.rows(), np.array([[1, NAN], [NAN, 2], [NAN, 3]]))
    assert each.source.complaints.active == {"MALFORMED"}
    now_ns = time.time_ns()
    assert all(abs(int(t) - now_ns) < 60 * SECOND for b in each.batches for t in b.times_ns)


def test_retained_messages_are_left_out(reading: Any, stopped_mosquitto: Mosquitto) -> None:
    stopped_mosquitto.start()
    each = reading(topic="plant/+")
    end = time.monotonic() + 30
    while not each.rows():  # it is no old one for whoever has subscribed by then
        assert time.monotonic() < end
        each.publish("plant/a", b"1", retain=True)
    late = reading(topic="plant/+")
    while not late.rows():
        assert time.monotonic() < end, (each.rows(), late.rows(), late.source.complaints.counts)
        each.publish("plant/b", b"2")
    assert late.rows()[0][1] == 2 and np.isnan(late.rows()[0][0])


def test_a_wrong_password_is_said_and_tried_again(
    reading: Any, stopped_mosquitto: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopped_mosquitto.start("allow_anonymous false\n")
    each = reading(topic="x")
    end = time.monotonic() + 10
    while each.source.complaints.counts["DISCONNECTED"] < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert caplog.text.count("it refuses the connection") == 1
