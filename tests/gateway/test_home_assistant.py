"""Discovery payloads by Home Assistant's rules, and no ghost of what is gone."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.gateway_rig import OWN, QUIET, Peer, Rig, wait_for

from edge_tsad.config import ConfigDecoder, GatewayConfig
from edge_tsad.errors import ConfigError
from edge_tsad.runtime.home_assistant import object_id
from edge_tsad.runtime.outbox import Bounds, Outbox
from edge_tsad.runtime.retained import RetainedTopics
from edge_tsad.types import Now

ON = '[home_assistant]\ndiscovery = true\n[commands]\nallow = ["ack", "silence", "sensitivity"]\n'
PLAIN = "[home_assistant]\ndiscovery = true\n"
SECOND = (
    '[[streams]]\nname = "fan.2"\nbundle = "tiny.tsad"\nsource = { type = "csv", path = "x.csv" }\n'
)
GATEWAY = "homeassistant/device/edge-tsad-plant-gw/config"
PUMP = "homeassistant/device/edge-tsad-plant-gw-pump"
NOW = Now(0, 0, "boot")

# What Home Assistant's MQTT integration demands of each platform.
REQUIRED = {
    "binary_sensor": {"state_topic"},
    "sensor": {"state_topic"},
    "button": {"command_topic"},
    "switch": {"command_topic"},
    "number": {"command_topic"},
}
CLASSES = {
    "binary_sensor": {"problem", "connectivity"},
    "sensor": {"enum", "timestamp"},
}


def check_device(topic: str, payload: dict[str, Any]) -> None:
    """The rules of device discovery."""
    assert re.fullmatch(r"homeassistant/device/[A-Za-z0-9_-]+/config", topic)
    assert payload["device"]["identifiers"] and payload["device"]["name"]
    assert payload["origin"]["name"]
    for component in payload["components"].values():
        platform = component["platform"]
        if component == {"platform": platform}:
            continue  # removes an entity
        assert REQUIRED[platform] <= component.keys() and component["unique_id"]
        if "device_class" in component:
            assert component["device_class"] in CLASSES[platform]
        if component.get("device_class") == "enum":
            assert component["options"] and "state_class" not in component
        # Entities of the category config can be set, those that are only read are diagnostic.
        expected = {"diagnostic"} if platform in ("sensor", "binary_sensor") else {"config"}
        assert {component.get("entity_category", *expected)} <= expected
        if platform == "number":
            assert component["min"] < component["max"] and component["step"] >= 0.001


def devices(peer: Peer) -> dict[str, Any]:
    """The newest payload of each device; None for one that was cleared."""
    return {
        topic: peer.last(topic)
        for topic in {message.topic for message in peer.messages}
        if topic.startswith("homeassistant/device/")
    }


@pytest.fixture
def watched(rig: Rig, peers: Callable[..., Peer]) -> tuple[Rig, Peer]:
    (rig.folder / "x.csv").write_text("time,flow,pressure\n1800000000,0,0\n")
    rig.broker.start()
    return rig, peers(rig.broker.port, "#")


def test_payloads_follow_the_rules_and_name_real_topics(watched: tuple[Rig, Peer]) -> None:
    rig, peer = watched
    rig.start(ON, streams=SECOND)
    wait_for(lambda: len(devices(peer)) == 3 and peer.last(f"{OWN}/state/pump"))
    found = devices(peer)
    names = []
    for topic, payload in found.items():
        check_device(topic, payload)
        names += [each["unique_id"] for each in payload["components"].values()]
    assert len(names) == len(set(names))
    pump = found[f"{PUMP}/config"]
    assert pump["device"]["via_device"] == found[GATEWAY]["device"]["identifiers"][0]
    parts = pump["components"]
    assert parts["anomaly"]["device_class"] == parts["health"]["device_class"] == "problem"
    assert parts["score"]["state_topic"] == f"{OWN}/score/pump"
    assert parts["score"]["expire_after"] >= 60
    assert pump["availability"][0]["topic"] == f"{OWN}/status"  # of the last will
    state = peer.last(f"{OWN}/state/pump")
    keys = set()
    for part in parts.values():
        if part.get("state_topic") == f"{OWN}/state/pump":
            keys |= set(re.findall(r"value_json\.(\w+)", part["value_template"]))
    assert {"process", "health", "silenced_until", "sensitivity", "threshold"} == keys <= set(state)
    # What the entities publish is what the gateway takes.
    rig.feed(QUIET)
    press, switch, number = (parts[name] for name in ("ack", "silence", "sensitivity"))
    peer.send(press["command_topic"], press["payload_press"].encode())
    assert peer_answer(peer, "ack")["reason"] == "no alert is open"
    peer.send(switch["command_topic"], switch["payload_on"].encode())
    assert peer_answer(peer, "silence")["result"]["silenced_until"]
    body = number["command_template"].replace("{{ value }}", "2.0")
    peer.send(number["command_topic"], body.encode())
    assert peer_answer(peer, "sensitivity")["result"]["sensitivity"] == 2.0


def peer_answer(peer: Peer, command: str) -> dict[str, Any]:
    message, answer = peer.answer()
    assert message.topic == f"{OWN}/response/{command}"
    return answer


def test_streams_and_entities_that_are_gone_are_cleared_once(watched: tuple[Rig, Peer]) -> None:
    rig, peer = watched
    rig.start(ON, streams=SECOND)
    wait_for(lambda: len(devices(peer)) == 3 and peer.last(f"{OWN}/state/fan.2"))
    (fan,) = (topic for topic in devices(peer) if "fan_2" in topic)
    rig.kill()
    peer.messages.clear()
    rig.start(PLAIN)
    wait_for(lambda: fan in devices(peer) and f"{PUMP}/config" in devices(peer))
    wait_for(lambda: peer.bodies(f"{OWN}/state/fan.2") == [None])
    assert devices(peer)[fan] is None
    parts = devices(peer)[f"{PUMP}/config"]["components"]
    assert parts["ack"] == {"platform": "button"} and parts["silence"] == {"platform": "switch"}
    assert parts["anomaly"]["state_topic"]
    rig.stop()  # what was cleared is forgotten, and not cleared again
    peer.messages.clear()
    rig.start(PLAIN)
    wait_for(lambda: f"{PUMP}/config" in devices(peer) and peer.last(f"{OWN}/state/pump"))
    assert fan not in devices(peer)
    rig.stop()
    peer.messages.clear()
    rig.start("")  # switched off
    wait_for(lambda: devices(peer) == {GATEWAY: None, f"{PUMP}/config": None})


def test_they_are_said_again_when_home_assistant_begins(watched: tuple[Rig, Peer]) -> None:
    rig, peer = watched
    rig.start(PLAIN)
    wait_for(lambda: len(devices(peer)) == 2)
    rig.feed(QUIET)
    wait_for(lambda: peer.last(f"{OWN}/state/pump")["process"] == "OK")
    peer.messages.clear()
    peer.send("homeassistant/status", b"offline")
    peer.send("homeassistant/status", b"online")
    wait_for(lambda: len(devices(peer)) == 2)
    assert [len(peer.bodies(topic)) for topic in devices(peer)] == [1, 1]


def test_ghosts_are_remembered_until_the_broker_has_cleared_them(tmp_path: Path) -> None:
    class Broker:
        def __init__(self) -> None:
            self.cleared_topics: list[str] = []
            self.asked: list[str] = []

        def clear(self, topic: str) -> None:
            self.asked.append(topic)

        def retain(self, topic: str, payload: bytes) -> None: ...

        def cleared(self) -> list[str]:
            return self.cleared_topics

    def run(states: list[str]) -> Broker:
        box = Outbox(tmp_path / "o.db", Bounds(), NOW)
        broker = Broker()
        kept = RetainedTopics(box, broker, states, {})  # type: ignore[arg-type]
        kept.begin(NOW)
        if answers:
            broker.cleared_topics = broker.asked
        kept.tick(NOW)
        box.close()
        return broker

    answers = False
    run(["a", "b"])
    assert run(["a"]).asked == run(["a"]).asked == ["b"]  # no broker was there
    answers = True
    assert run(["a"]).asked == ["b"]
    assert run(["a"]).asked == []


NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,5}", fullmatch=True)
NAMES = st.lists(NAME, min_size=2, max_size=3)


@settings(deadline=None)
@given(NAMES, NAMES)
def test_different_streams_have_different_ids(one: list[str], other: list[str]) -> None:
    first, second = object_id("edge-tsad", *one), object_id("edge-tsad", *other)
    assert (first == second) == (one == other)
    assert re.fullmatch("[A-Za-z0-9_-]+", first)


@pytest.mark.parametrize("prefix", ["", "a/", "/a", "a/+/b", "#", "a b"])
def test_a_prefix_that_is_no_topic_is_refused(prefix: str) -> None:
    text = {"site": "s", "device": "d", "streams": [], "home_assistant": {"prefix": prefix}}
    with pytest.raises(ConfigError, match=r"^home_assistant\.prefix: "):
        ConfigDecoder().dataclass(GatewayConfig, text, "")
