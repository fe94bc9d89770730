"""What can be asked of a running gateway, over a real broker: each request is answered once."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.gateway_rig import OWN, QUIET, SPIKE, Peer, Rig, wait_for
from paho.mqtt import client as paho

from edge_tsad.errors import DataError
from edge_tsad.runtime.requests import REQUESTS, read

ALL = '[commands]\nallow = ["ack", "silence", "sensitivity", "label", "replay"]\n'
STATE, ALERT, STATUS = f"{OWN}/state/pump", f"{OWN}/alert/pump", f"{OWN}/status"
Peers = Callable[..., Peer]


def begin(rig: Rig, peers: Peers, extra: str = ALL, **options: Any) -> Peer:
    """A gateway with a warm stream, and who commands it."""
    if rig.broker._process is None:
        rig.broker.start()
    peer = peers(rig.broker.port)
    rig.start(extra, **options)
    rig.feed(QUIET)
    wait_for(lambda: peer.last(STATE) and peer.last(STATE)["process"] == "OK")
    return peer


def crash(rig: Rig, peer: Peer, extra: str = ALL) -> None:
    """Kill the gateway, and start it again."""
    rig.kill()
    wait_for(lambda: peer.last(STATUS) == {"online": False, "reason": "lost"})
    peer.forget(STATE)
    rig.start(extra)
    wait_for(lambda: peer.last(STATE))


def kinds(peer: Peer) -> list[str]:
    return [alert["type"] for alert in peer.bodies(ALERT)]


def test_nothing_is_done_until_the_configuration_allows_it(rig: Rig, peers: Peers) -> None:
    peer = begin(rig, peers, '[commands]\nallow = ["ack"]\n')
    answer = peer.ask("silence", {"stream": "pump", "for_s": 60, "request": "a"})
    assert answer == {
        "command": "silence", "request": "a", "ok": False, "result": {},
        "reason": "it is off; add 'silence' to commands.allow in the configuration",
    }  # fmt: skip
    assert peer.last(STATE)["silenced_until"] is None
    assert peer.last(STATUS)["commands"] == ["ack"]
    assert peer.ask("ack", {"stream": "pump"})["reason"] == "no alert is open"


def test_an_alert_is_acknowledged_and_stays_so_over_a_crash(rig: Rig, peers: Peers) -> None:
    peer = begin(rig, peers)
    rig.feed(SPIKE)
    new = wait_for(lambda: peer.last(ALERT))
    wrong = peer.ask("ack", {"stream": "pump", "id": "0" * 16})
    assert not wrong["ok"] and "is not open" in wrong["reason"]
    answer = peer.ask("ack", {"stream": "pump", "id": new["id"]})
    assert answer["ok"] and answer["result"] == {"id": new["id"], "already": False}
    crash(rig, peer)  # the answer came after the commit
    rig.feed(SPIKE)
    wait_for(lambda: peer.last(STATE)["process"] == "ACKED")
    # The crash may have come before the broker's acknowledgement: then one comes twice.
    wait_for(
        lambda: {a["seq"]: a["acknowledged"] for a in peer.bodies(ALERT)} == {1: False, 2: True}
    )
    assert peer.ask("ack", {"stream": "pump"})["result"]["already"] is True
    rig.feed(QUIET)
    wait_for(lambda: kinds(peer)[-1] == "end")
    assert {a["id"] for a in peer.bodies(ALERT)} == {new["id"]}


def test_a_silence_keeps_alerts_back_counts_them_and_survives_a_crash(
    rig: Rig, peers: Peers
) -> None:
    peer = begin(rig, peers)
    answer = peer.ask("silence", {"stream": "pump", "for_s": 3600})
    assert answer["ok"] and answer["result"]["suppresses"] == ["new", "update"]
    wait_for(lambda: peer.last(STATE)["silenced_until"] == answer["result"]["silenced_until"])
    crash(rig, peer)
    rig.feed(QUIET + SPIKE + QUIET + SPIKE)
    state = wait_for(
        lambda: (s := peer.last(STATE)) and s["process"] == "FIRING" and s["suppressed"] and s
    )
    assert state["silenced_until"] == answer["result"]["silenced_until"]
    assert state["suppressed"] == {"new": 2, "end": 1} and kinds(peer) == []
    # What outlasts the silence is told when it is over, and gets its end.
    assert peer.ask("silence", {"stream": "pump", "for_s": 0})["ok"]
    new = wait_for(lambda: peer.last(ALERT))
    assert (new["type"], new["id"], new["seq"]) == ("new", state["alert_id"], 1)
    rig.feed(QUIET)
    wait_for(lambda: kinds(peer) == ["new", "end"])
    assert peer.last(ALERT)["seq"] == 2


def test_an_alert_that_was_told_before_the_silence_still_ends(rig: Rig, peers: Peers) -> None:
    peer = begin(rig, peers)
    rig.feed(SPIKE)
    wait_for(lambda: kinds(peer) == ["new"])
    assert peer.ask("silence", {"stream": "pump", "for_s": 3600})["ok"]
    rig.feed(QUIET)
    wait_for(lambda: kinds(peer) == ["new", "end"])


def test_a_silence_ends_by_itself(rig: Rig, peers: Peers) -> None:
    peer = begin(rig, peers)
    assert peer.ask("silence", {"stream": "pump", "for_s": 1.5})["ok"]
    rig.feed(SPIKE)
    wait_for(lambda: kinds(peer) == ["new"])
    assert wait_for(lambda: peer.last(STATE)["silenced_until"] is None)


def test_sensitivity_moves_the_threshold_within_bounds_and_is_kept(rig: Rig, peers: Peers) -> None:
    extra = ALL + "sensitivity = [0.5, 4.0]\n"
    peer = begin(rig, peers, extra)
    before = peer.last(STATE)["threshold"]
    answer = peer.ask("sensitivity", {"stream": "pump", "value": 4})
    assert answer["result"]["threshold"] < before
    assert "is not in 0.5…4" in peer.ask("sensitivity", {"stream": "pump", "value": 5})["reason"]
    crash(rig, peer, extra)
    rig.feed(QUIET)
    wait_for(lambda: peer.last(STATE)["threshold"] == answer["result"]["threshold"])
    assert peer.last(STATE)["sensitivity"] == 4
    rig.feed([(before + answer["result"]["threshold"]) / 2] * 6)
    alert = wait_for(lambda: peer.last(ALERT))
    assert alert["threshold"] == answer["result"]["threshold"]
    answer = peer.ask("sensitivity", {"stream": "pump", "value": None})
    assert answer["result"] == {
        "sensitivity": 1.0, "threshold": before, "calibration": "CALIBRATED",
    }  # fmt: skip


def test_a_replay_sends_acknowledged_alerts_again_and_says_what_is_gone(
    rig: Rig, peers: Peers
) -> None:
    peer = begin(rig, peers)
    rig.feed(SPIKE + QUIET + SPIKE + QUIET)
    wait_for(lambda: kinds(peer) == ["new", "end"] * 2)
    first = peer.bodies(ALERT)
    answer = peer.ask("replay", {"from_seq": 2, "to_seq": 9, "epoch": first[0]["epoch"]})
    assert answer["result"] == {
        "from_seq": 2, "to_seq": 4, "count": 3, "gone": 0, "oldest_seq": 1,
        "epoch": first[0]["epoch"],
    }  # fmt: skip
    wait_for(lambda: len(peer.bodies(ALERT)) == 7)
    assert peer.bodies(ALERT)[4:] == [{**alert, "late": True} for alert in first[1:]]
    answer = peer.ask("replay", {"from_seq": 5})
    assert answer["ok"] and answer["result"]["count"] == 0
    assert (
        "are gone with their outbox" in peer.ask("replay", {"from_seq": 1, "epoch": "x"})["reason"]
    )


@pytest.mark.parametrize(
    ("command", "body", "reason"),
    [
        ("ack", b"", "it: is no JSON text"),
        ("ack", b"[]", "is no JSON object"),
        ("ack", b'{"stream": "pump", "stream": "x"}', "has the key 'stream' twice"),
        ("ack", {"stream": "pump", "idd": "x"}, "idd: is not a known key; did you mean 'id'?"),
        ("ack", {}, "stream: is missing"),
        ("ack", {"stream": "x\x1b"}, "there is no stream 'x\\x1b'; there are pump"),
        ("ack", {"stream": "pump", "request": "x" * 65}, "request: is no text of at most 64"),
        ("ack", b" " * 5000, "is larger than 4096 bytes"),
        ("silence", {"stream": "pump", "for_s": 86_401}, "for_s: 86401 is not in 0…86400"),
        ("silence", {"stream": "pump", "for_s": -1}, "for_s: -1 is not in"),
        ("silence", {"stream": "pump", "for_s": True}, "for_s: is True; a number is needed"),
        ("silence", b'{"stream": "pump", "for_s": NaN}', "holds NaN"),
        ("sensitivity", {"stream": "pump"}, "value: is missing"),
        ("label", {"stream": "pump", "id": "x", "label": "normal"}, "is not the id of an alert"),
        ("label", {"stream": "pump", "id": "0" * 16, "label": "bad"}, "must be one of anomaly"),
        ("label", {"stream": "pump", "id": "0" * 16, "label": "normal"}, "is kept any more"),
        ("replay", {"from_seq": 0}, "from_seq: 0 is not positive"),
        ("replay", {"from_seq": 3, "to_seq": 2}, "to_seq: 2 is less than from_seq"),
        ("flash", {"url": "x"}, "there is no such command; there are ack, silence"),
    ],
)
def test_a_wrong_request_is_answered_with_the_reason(
    asked: tuple[Peer, Any], command: str, body: object, reason: str
) -> None:
    peer, _ = asked
    answer = peer.ask(command, body)
    assert not answer["ok"] and reason in answer["reason"], answer
    assert peer.answers.empty()


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One gateway for all requests that change nothing."""
    from conftest import EXECUTABLE, Mosquitto

    if EXECUTABLE is None:
        pytest.skip("MOSQUITTO IS MISSING: commands are not tested (apt install mosquitto)")
    folder = tmp_path_factory.mktemp("asked")
    broker = Mosquitto(folder)
    broker.start()
    rig = Rig(folder, broker)
    peer = Peer(broker.port, f"{OWN}/#")
    rig.start(ALL)
    wait_for(lambda: peer.last(STATE))
    yield peer, rig
    rig.kill()
    peer.close()
    broker.stop()


def test_the_answer_goes_to_the_response_topic_with_its_correlation(
    asked: tuple[Peer, Any],
) -> None:
    peer, _ = asked
    peer.send(
        f"{OWN}/cmd/replay", {"from_seq": 1, "request": "r"},
        ResponseTopic=f"{OWN}/response/mine/7", CorrelationData=b"\x00\xff",
    )  # fmt: skip
    message, answer = peer.answer()
    assert message.topic == f"{OWN}/response/mine/7" and answer["request"] == "r" and answer["ok"]
    assert message.properties.CorrelationData == b"\x00\xff" and not message.retain
    assert peer.answers.empty()


@pytest.mark.parametrize("topic", [STATUS, ALERT, "elsewhere", f"{OWN}/response/"])
def test_nobody_speaks_in_the_gateways_name(asked: tuple[Peer, Any], topic: str) -> None:
    peer, _ = asked
    before = len(peer.messages)
    answer = peer.ask("silence", {"stream": "pump", "for_s": 60}, ResponseTopic=topic)
    assert not answer["ok"] and "must be below edge-tsad/plant/gw/response/" in answer["reason"]
    assert peer.last(STATE)["silenced_until"] is None
    said = [m for m in peer.messages[before:] if m.topic == topic]
    assert all(b'"command"' not in message.payload for message in said)


def test_a_retained_command_is_refused_at_once_and_with_each_connection(
    rig: Rig, peers: Peers
) -> None:
    peer = begin(rig, peers)
    peer.send(f"{OWN}/cmd/silence", {"stream": "pump", "for_s": 60}, retain=True)
    assert "a retained command is not carried out" in peer.answer()[1]["reason"]
    rig.stop()
    rig.start(ALL)
    assert "a retained command is not carried out" in peer.answer()[1]["reason"]
    assert peer.last(STATE)["silenced_until"] is None


def test_a_command_that_came_while_the_gateway_was_away_is_not_carried_out(
    rig: Rig, peers: Peers
) -> None:
    peer = begin(rig, peers)
    rig.stop()
    peer.send(f"{OWN}/cmd/silence", {"stream": "pump", "for_s": 60})
    peer.forget(STATE)
    rig.start(ALL)
    wait_for(lambda: peer.last(STATE))
    assert peer.ask("replay", {"from_seq": 1, "request": "b"})["request"] == "b"
    assert peer.last(STATE)["silenced_until"] is None


def test_under_mqtt_3_the_answer_goes_to_the_default_topic(rig: Rig, peers: Peers) -> None:
    rig.broker.start()
    peer = peers(rig.broker.port, version=paho.MQTTv311)
    rig.start(ALL, broker='protocol = "3.1.1"')
    wait_for(lambda: peer.last(STATE))
    peer.send(f"{OWN}/cmd/silence", {"stream": "pump", "for_s": 60, "request": "me-1"})
    message, answer = peer.answer()
    assert message.topic == f"{OWN}/response/silence" and answer["ok"]
    assert answer["request"] == "me-1"
    wait_for(lambda: (peer.last(STATUS) or {}).get("proof") == "proven")
    with pytest.raises(queue.Empty):
        peer.answer(0.3)


def test_labels_are_stored_by_alert_and_exported(rig: Rig, peers: Peers) -> None:
    from click.testing import CliRunner

    from edge_tsad.cli import main

    peer = begin(rig, peers)
    rig.feed(SPIKE + QUIET)
    wait_for(lambda: kinds(peer) == ["new", "end"])
    new, end = peer.bodies(ALERT)
    gateway = str(rig.folder / "gateway.toml")
    for label, spans in (("anomaly", [f"{new['onset']}..{end['time']}"]), ("normal", [])):
        request = {"stream": "pump", "id": new["id"], "label": label, "note": "cleaning, again"}
        answer = peer.ask("label", request)
        assert answer["ok"] and answer["result"]["begin"] == new["onset"]
        printed = CliRunner().invoke(main, ["labels", gateway, "--exclude"]).stdout.splitlines()
        assert [line for line in printed if not line.startswith("#")] == spans
    rig.kill()
    result = CliRunner().invoke(main, ["labels", str(rig.folder / "gateway.toml"), "--json"])
    (row,) = map(json.loads, result.stdout.splitlines())
    assert (row["stream"], row["id"], row["label"]) == ("pump", new["id"], "normal")
    assert (row["begin"], row["end"]) == (new["onset"], end["time"])
    assert (row["from_index"], row["to_index"]) == (new["onset_index"], end["index"])
    table = CliRunner().invoke(main, ["labels", str(rig.folder / "gateway.toml")]).stdout
    assert table.splitlines()[0].startswith("stream,id,label,") and '"cleaning, again"' in table


@settings(deadline=None)
@given(
    command=st.sampled_from(sorted(REQUESTS)),
    data=st.binary(max_size=200) | st.text().map(str.encode),
)
def test_junk_is_an_error_of_one_kind(command: str, data: bytes) -> None:
    with pytest.raises(DataError):
        read(command, data)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
)
KEYS = st.sampled_from(["stream", "id", "for_s", "value", "label", "note", "from_seq", "request"])


@settings(deadline=None)
@given(command=st.sampled_from(sorted(REQUESTS)), table=st.dictionaries(KEYS, JSON))
def test_any_json_is_a_request_or_one_sentence(command: str, table: dict[str, Any]) -> None:
    try:
        request = read(command, json.dumps(table).encode())
    except DataError as e:
        assert str(e) and "\n" not in str(e)
    else:
        assert isinstance(request, REQUESTS[command])
