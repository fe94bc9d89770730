"""The AsyncAPI file is what the code does: topics, schemas and a real run."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from oracles.gateway_rig import OWN, QUIET, SPIKE, Peer, Rig, wait_for

from edge_tsad.broker import CommandsConfig
from edge_tsad.runtime.labels import AlertLabel
from edge_tsad.runtime.requests import REQUESTS, Answer, read
from edge_tsad.runtime.sinks.base import Proof
from edge_tsad.runtime.topics import Topics, alert_filter, response_filter

ROOT = Path(__file__).parents[2]
CONTRACT = json.loads((ROOT / "docs" / "asyncapi.json").read_text())
SCHEMAS = CONTRACT["components"]["schemas"]
CHANNELS = CONTRACT["channels"]
ALL = """[commands]
allow = ["ack", "silence", "sensitivity", "label", "replay"]
[home_assistant]
discovery = true
"""


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", **CONTRACT})


def channels_of(topic: str) -> list[str]:
    """The channels whose address a topic matches."""
    found = []
    for name, channel in CHANNELS.items():
        levels = [
            "[^/+#]+" if level.startswith("{") else re.escape(level)
            for level in channel["address"].split("/")
        ]
        if re.fullmatch("/".join(levels), topic):
            found.append(name)
    return found


def channel_of(topic: str) -> str:
    (name,) = channels_of(topic)
    return name


def schema_of(topic: str) -> str:
    (message,) = CHANNELS[channel_of(topic)]["messages"]
    return str(message)


def problems(topic: str, payload: bytes) -> list[str]:
    if schema_of(topic) in ("Probe", "Birth"):
        return []
    found = validator(schema_of(topic)).iter_errors(json.loads(payload))
    return [f"{topic}: {error.json_path}: {error.message}" for error in found]


def test_details_of_a_detector_are_in_the_contract() -> None:
    details = validator("Alert").evolve(
        schema={"$ref": "#/components/schemas/Alert/properties/details", **CONTRACT}
    )
    assert details.is_valid({"class": 3, "turn_deg": 41.2})
    assert not details.is_valid({"class": -1}) and not details.is_valid({"class": "third"})


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(each) for each in value.values()), set())
    if isinstance(value, list):
        return set().union(*(references(each) for each in value))
    return set()


def test_the_file_is_whole() -> None:
    assert CONTRACT["asyncapi"].startswith("3.")
    for reference in references(CONTRACT):
        place = CONTRACT
        for key in reference.removeprefix("#/").split("/"):
            place = place[key]
    for name in SCHEMAS:
        Draft202012Validator.check_schema({"$ref": f"#/components/schemas/{name}", **CONTRACT})
    used = references(CONTRACT["channels"]) | references(CONTRACT["components"])
    assert {f"#/components/schemas/{name}" for name in SCHEMAS} <= used
    assert {each["channel"]["$ref"] for each in CONTRACT["operations"].values()} == {
        f"#/channels/{name}" for name in CHANNELS if name != "response"
    }
    for channel in CHANNELS.values():
        assert set(re.findall(r"{(\w+)}", channel["address"])) == set(channel["parameters"])


def test_every_topic_of_the_code_is_a_channel_and_none_is_missing() -> None:
    topics = Topics("plant", "gw")
    made = [topics.status, topics.probe, topics.state("s"), topics.alert("s"), topics.score("s")]
    made += [topics.update("s")]
    made += [topics.alert("s/health"), topics.response("ack"), "homeassistant/status"]
    made += [*(topics.command(name) for name in REQUESTS), "homeassistant/device/x/config"]
    assert sorted(map(channel_of, made)) == sorted(CHANNELS)
    methods = {name for name in vars(Topics) if not name.startswith("_")}
    assert methods == {
        "site", "device", "status", "state", "update", "alert", "score", "command", "response",
        "probe",
    }  # fmt: skip
    for where in (alert_filter(), response_filter("replay")):
        assert channels_of(where.replace("+", "x").replace("#", "x"))


def default_free(cls: Any) -> list[str]:
    missing = dataclasses.MISSING
    return sorted(
        field.name
        for field in dataclasses.fields(cls)
        if field.default is missing and field.default_factory is missing
    )


@pytest.mark.parametrize("command", REQUESTS)
def test_the_schema_of_a_request_has_the_fields_of_its_class(command: str) -> None:
    kind = REQUESTS[command]
    (name,) = CHANNELS[f"cmd-{command}"]["messages"]
    schema = SCHEMAS[name]
    assert name == kind.__name__ and schema["additionalProperties"] is False
    assert set(schema["properties"]) == {field.name for field in dataclasses.fields(kind)}
    assert schema["required"] == default_free(kind)
    assert CONTRACT["operations"][f"do{command.capitalize()}"]["reply"]


def test_other_schemas_agree_with_the_code() -> None:
    assert set(SCHEMAS["Answer"]["properties"]) == {f.name for f in dataclasses.fields(Answer)}
    assert SCHEMAS["Answer"]["properties"]["command"]["enum"] == [*REQUESTS, "unknown"]
    assert set(SCHEMAS["Online"]["properties"]["proof"]["enum"]) == set(Proof.__args__)  # type: ignore[attr-defined]
    allowed = SCHEMAS["Online"]["properties"]["commands"]["items"]["enum"]
    assert CommandsConfig(allow=tuple(allowed)).allow == tuple(REQUESTS)
    fields = {field.name for field in dataclasses.fields(AlertLabel)}
    assert set(SCHEMAS["LabelResult"]["properties"]) <= fields


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_real_run_says_nothing_else(protocol: str, rig: Rig, peers: Callable[..., Peer]) -> None:
    rig.broker.start("log_type all")
    peer = peers(rig.broker.port, "#")
    rig.start(ALL, broker=f'protocol = "{protocol}"\nscore_interval_s = 0.1', streams=SILENT)
    rig.feed(QUIET)
    wait_for(
        lambda: (
            peer.last(f"{OWN}/state/pump")["process"] == "OK"
            if peer.bodies(f"{OWN}/state/pump")
            else None
        )
    )
    rig.feed(SPIKE)
    alert = wait_for(lambda: peer.last(f"{OWN}/alert/pump"))
    for command, body in (
        ("ack", {"stream": "pump"}),
        ("ack", {"stream": "pump", "request": "again"}),
        ("label", {"stream": "pump", "id": alert["id"], "label": "normal"}),
        ("silence", {"stream": "pump", "for_s": 60}),
        ("sensitivity", {"stream": "pump", "value": 2}),
        ("replay", {"from_seq": 1}),
        ("flash", b"\x00"),
    ):
        rig_answer(peer, command, body)
    wait_for(lambda: peer.last(f"{OWN}/state/pump")["silenced_until"])
    rig.feed(QUIET)
    wait_for(lambda: peer.last(f"{OWN}/alert/pump")["type"] == "end")
    wait_for(lambda: peer.bodies(f"{OWN}/score/pump"))
    wait_for(lambda: peer.last(f"{OWN}/alert/silent/health"), 30)
    rig.stop()
    wait_for(lambda: peer.last(f"{OWN}/status") == {"online": False, "reason": "stopped"})
    ours = [m for m in peer.messages if m.payload and "/cmd/" not in m.topic]
    found = [each for m in ours for each in problems(m.topic, m.payload)]
    assert not found, "\n".join(sorted(set(found)))
    said = {channel_of(message.topic) for message in ours}
    optional = {"probe"} if protocol == "3.1.1" else set()
    assert said == {"status", "state", "alert", "health", "score", "discovery"} | optional
    retained = {op["channel"]["$ref"].split("/")[-1] for op in CONTRACT["operations"].values()
                if op["action"] == "send" and op["bindings"]["mqtt"]["retain"]}  # fmt: skip
    fresh = peers(rig.broker.port, "edge-tsad/#", "homeassistant/#")
    wait_for(lambda: len(fresh.messages) >= 6)
    # An update is told where a slot is followed; this gateway has none.
    assert {channel_of(m.topic) for m in fresh.messages} == retained - {"update"}
    subscribed = re.findall(r"^\d+: \t(\S+) \(QoS \d\)$", rig.broker.log(), re.M)
    wanted = set(subscribed) - {"#", "edge-tsad/#", "homeassistant/#"}
    assert wanted == {f"{OWN}/cmd/+", "homeassistant/status"} | (
        {f"{OWN}/probe"} if protocol == "3.1.1" else set()
    )


def rig_answer(peer: Peer, command: str, body: object) -> None:
    """Ask, and hold request and answer against the contract."""
    answer = peer.ask(command, body)
    assert not list(validator("Answer").iter_errors(answer)), answer
    if answer["ok"]:
        (name,) = CHANNELS[f"cmd-{command}"]["messages"]
        assert not list(validator(name).iter_errors(body))
        assert not list(validator(f"{name}Result").iter_errors(answer["result"])), answer


SILENT = """[[streams]]
name = "silent"
bundle = "tiny.tsad"
health.no_data_s = 2
source = { type = "mqtt", topic = "nothing/+", broker.url = "mqtt://127.0.0.1:1" }
"""


PAGE = (ROOT / "docs" / "mqtt.md").read_text()


def test_every_message_on_the_page_is_as_the_contract_says() -> None:
    lines = re.findall(r"^(edge-tsad/\S+) (\{.*\})$", PAGE, re.M)
    found = [each for topic, body in lines for each in problems(topic, body.encode())]
    assert len(lines) >= 8 and not found
    assert {channel_of(topic) for topic, _ in lines} >= {"status", "state", "alert", "cmd-ack"}


def test_every_command_on_the_page_is_one_that_the_gateway_takes() -> None:
    found = re.findall(r"^mosquitto_(?:pub|rr) .*-t (\S+) .*-m '(.*)'$", PAGE, re.M)
    for topic, body in found:
        read(topic.rpartition("/")[2], body.encode())
        assert not problems(topic, body.encode())
    assert {topic.rpartition("/")[2] for topic, _ in found} == set(REQUESTS)
    for command in REQUESTS:
        assert f"| `{command}` |" in PAGE
    for name in SCHEMAS["Online"]["properties"]:
        assert f'"{name}"' in PAGE
