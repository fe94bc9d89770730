"""A consumer misses nothing that the gateway still has, and says what it cannot have."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Mosquitto
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.gateway_rig import OWN, QUIET, SPIKE, Peer, Rig, wait_for

from edge_tsad.broker import BrokerConfig
from edge_tsad.runtime.gaps import Gaps
from edge_tsad.runtime.subscription import AlertSubscription
from edge_tsad.runtime.topics import alert_filter, shared

REPLAY = '[commands]\nallow = ["replay"]\n[alerts]\nflaps = 100\n'
"""Five alerts in a few minutes, each with its end, which a stream that flaps would not get."""
FILTER = alert_filter("plant", "gw")


def alert(seq: int, epoch: str = "e", device: str = "gw") -> dict[str, Any]:
    return {"site": "plant", "device": device, "epoch": epoch, "seq": seq, "id": "x"}


class Consumer:
    """Gaps with a clock and a gateway that answers as it is told."""

    def __init__(self, path: Path | None = None) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.gaps = Gaps("me", lambda *request: self.asked.append(request), path)
        self.second = 0.0

    def see(self, *numbers: int, **options: Any) -> None:
        for seq in numbers:
            self.gaps.note(alert(seq, **options), self.second)

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.second += 1
            self.gaps.tick(self.second)

    def answer(self, *, ok: bool = True, reason: str = "", **result: Any) -> None:
        request = self.asked[-1][1]["request"]
        answer = {"request": request, "ok": ok, "reason": reason, "result": result}
        self.gaps.answered("plant/gw", answer, self.second)

    def spans(self) -> list[tuple[int, int]]:
        return [(request["from_seq"], request["to_seq"]) for _, request in self.asked]


def test_a_gap_is_asked_for_once_and_closed_by_what_comes() -> None:
    consumer = Consumer()
    consumer.see(5, 6, 9, 10)
    consumer.wait(3)
    assert consumer.asked == [
        ("plant/gw", {"from_seq": 7, "to_seq": 8, "epoch": "e", "request": "me-1"})
    ]
    consumer.answer(count=2, gone=0)
    consumer.see(7, 8)
    consumer.wait(1000)
    assert len(consumer.asked) == 1


def test_what_arrives_out_of_order_is_no_gap() -> None:
    consumer = Consumer()
    consumer.see(1, 3, 2, 5, 4, 6)
    consumer.wait(100)
    assert consumer.asked == []


@settings(deadline=None)
@given(st.permutations(range(1, 12)), st.sets(st.integers(2, 10)))
def test_just_the_missing_numbers_are_asked_for(order: list[int], lost: set[int]) -> None:
    consumer = Consumer()
    consumer.see(1)
    consumer.see(*(n for n in order if n not in lost))
    asked: set[int] = set()
    for _ in range(20):
        consumer.wait(5)
        if not consumer.asked:
            break
        first, last = consumer.spans()[-1]
        asked |= set(range(first, last + 1))
        consumer.asked = consumer.asked[-1:]
        consumer.answer(count=last - first + 1, gone=0)
        consumer.see(*range(first, last + 1))
        consumer.asked.clear()
    assert asked == lost


def test_what_cannot_be_had_is_said_once_and_left(caplog: pytest.LogCaptureFixture) -> None:
    consumer = Consumer()
    consumer.see(1, 4)
    consumer.wait(3)
    consumer.answer(ok=False, reason="it is off")
    assert "plant/gw: the alerts 2 to 3 cannot be had: it is off" in caplog.text
    consumer.see(6, 9)
    consumer.wait(3)
    consumer.answer(count=0, gone=1)
    assert "1 of the missing alerts are gone" in caplog.text
    consumer.wait(5)
    assert consumer.spans() == [(2, 3), (5, 5), (7, 8)]
    consumer.answer(count=2, gone=0)
    consumer.wait(40)
    assert "the alerts 7 to 8 cannot be had: they did not come" in caplog.text
    consumer.wait(1000)
    assert len(consumer.asked) == 3


def test_a_gateway_that_does_not_answer_is_asked_again_for_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    consumer = Consumer()
    consumer.see(1, 3)
    consumer.wait(3000)
    assert len(consumer.asked) == 10
    assert caplog.text.count("does not answer cmd/replay: is replay in its commands.allow") == 1
    assert "the alerts 2 to 2 cannot be had: they did not come" in caplog.text


def test_a_new_outbox_is_said(caplog: pytest.LogCaptureFixture) -> None:
    consumer = Consumer()
    consumer.see(1, 2)
    consumer.see(40, 41, epoch="f")
    consumer.wait(10)
    assert consumer.asked == [] and "has begun a new outbox" in caplog.text


def test_a_gap_between_two_runs_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a" / "gaps.json"
    consumer = Consumer(path)
    consumer.see(1, 2, 4)
    consumer.gaps.save()
    consumer = Consumer(path)
    consumer.see(7)
    consumer.wait(3)
    consumer.answer(count=1, gone=0)
    consumer.see(3)
    consumer.wait(3)
    assert consumer.spans() == [(3, 3), (5, 6)]
    path.write_text('{"plant/gw": 3}')
    assert Consumer(path).gaps._known == {}


def collect(broker: str, name: str, timeout_s: float, path: Path | None) -> list[dict[str, Any]]:
    subscription = AlertSubscription(BrokerConfig(broker), name, FILTER, path)
    return list(subscription.alerts(timeout_s))


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_what_the_broker_dropped_is_fetched_from_the_gateway(
    protocol: str, rig: Rig, peers: Callable[..., Peer], tmp_path: Path
) -> None:
    rig.broker.start("max_queued_messages 2\nmax_inflight_messages 1")
    config = BrokerConfig(rig.broker.url, protocol=protocol)
    path = tmp_path / "gaps.json"
    assert list(AlertSubscription(config, "me", FILTER, path).alerts(0.7)) == []
    peer = peers(rig.broker.port)
    rig.start(REPLAY)
    rig.feed(QUIET)
    for count in (2, 4, 6, 8):  # one by one, or they were too many for the peer as well
        rig.feed(SPIKE)
        wait_for(lambda n=count: len(peer.bodies(f"{OWN}/alert/pump")) == n - 1)
        rig.feed(QUIET)
        wait_for(lambda n=count: len(peer.bodies(f"{OWN}/alert/pump")) == n)
    seen: list[dict[str, Any]] = []

    def listen() -> None:
        seen.extend(AlertSubscription(config, "me", FILTER, path).alerts(60, 10))

    thread = threading.Thread(target=listen)
    thread.start()
    wait_for(lambda: seen)
    rig.feed(SPIKE)
    # The last message waits for the others: were it dropped too, nothing after it would show that.
    wait_for(lambda: {each["seq"] for each in seen} >= set(range(1, 10)))
    rig.feed(QUIET)
    thread.join()
    assert sorted(each["seq"] for each in seen) == list(range(1, 11))
    assert [each["late"] for each in seen].count(True) >= 5
    assert json.loads(path.read_text())["plant/gw"] == {
        "epoch": seen[0]["epoch"], "seq": 10, "ahead": [],
    }  # fmt: skip


def test_a_gateway_that_may_not_replay_is_said(
    rig: Rig, peers: Callable[..., Peer], caplog: pytest.LogCaptureFixture
) -> None:
    rig.broker.start()
    peer = peers(rig.broker.port)
    rig.start()
    rig.feed(QUIET + (SPIKE + QUIET) * 2)
    wait_for(lambda: len(peer.bodies(f"{OWN}/alert/pump")) == 4)
    first, _, _, last = peer.bodies(f"{OWN}/alert/pump")
    subscription = AlertSubscription(BrokerConfig(rig.broker.url), "me", FILTER)
    listening = subscription.alerts(8)
    threading.Timer(
        1, lambda: [peer.send(f"{OWN}/alert/pump", each) for each in (first, last)]
    ).start()
    assert [each["seq"] for each in listening] == [1, 4]
    assert "the alerts 2 to 3 cannot be had: it is off; add 'replay'" in caplog.text


def test_two_consumers_share_the_alerts_and_lose_none(mosquitto: Mosquitto) -> None:
    seen: dict[str, list[int]] = {"one": [], "two": []}
    ready = threading.Barrier(3)

    def consume(name: str) -> None:
        topic = shared(alert_filter(), "desk")
        config = BrokerConfig(mosquitto.url)
        assert list(AlertSubscription(config, name, topic).alerts(0.7)) == []
        ready.wait(10)
        for each in AlertSubscription(config, name, topic).alerts(4):
            seen[name].append(each["seq"])

    threads = [threading.Thread(target=consume, args=(name,)) for name in seen]
    for thread in threads:
        thread.start()
    ready.wait(10)
    peer = Peer(mosquitto.port, "nothing")
    for seq in range(1, 41):
        peer.send("edge-tsad/plant/gw/alert/pump", alert(seq) | {"id": str(seq)})
    for thread in threads:
        thread.join()
    peer.close()
    assert sorted(seen["one"] + seen["two"]) == list(range(1, 41))
    assert min(len(numbers) for numbers in seen.values()) >= 5
