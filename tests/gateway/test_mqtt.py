"""Alerts and retained messages over a real broker: all arrive, are repeated, and settle."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Mosquitto
from oracles.mqtt_peers import Listener, alert, now, pump, wait

from edge_tsad.broker import BrokerConfig
from edge_tsad.runtime.delivery import Delivery
from edge_tsad.runtime.outbox import Bounds, Outbox
from edge_tsad.runtime.sinks.mqtt import MqttSink
from edge_tsad.runtime.subscription import AlertSubscription
from edge_tsad.types import Now


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_alerts_wait_for_the_broker_and_arrive_in_order(
    *,
    protocol: str,
    stopped_mosquitto: Mosquitto,
    sinks: Callable[..., MqttSink],
    outbox: Outbox,
    listen: Callable[[int], Listener],
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = sinks(BrokerConfig(stopped_mosquitto.url, protocol=protocol))
    delivery = Delivery(outbox, sink, lambda stream: f"t/alert/{stream}")
    outbox.commit("a", [alert(i + 1) for i in range(50)], b"", now())
    wait(lambda: "is not there" in caplog.text)
    for _ in range(30):
        delivery.tick(now())
        time.sleep(0.02)
    assert caplog.text.count("is not there") == 1 and delivery.waiting
    stopped_mosquitto.start()
    listener = listen(stopped_mosquitto.port)
    pump(delivery, lambda: not delivery.waiting)
    wait(lambda: len(listener.payloads("t/alert/a")) >= 50)
    numbers = [json.loads(p)["seq"] for p in listener.payloads("t/alert/a")]
    assert numbers == list(range(1, 51))


def test_an_outbox_that_cannot_be_read_is_said_once_and_read_again(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Sent:
        connection = 1

        def __init__(self) -> None:
            self.tokens: list[int] = []

        def acknowledgements(self) -> list[object]:
            return []

        def deliver(self, topic: str, payload: bytes, token: int) -> bool:
            self.tokens.append(token)
            return True

    def broken(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    sink = Sent()
    delivery = Delivery(outbox, sink, str)  # type: ignore[arg-type]
    outbox.commit("a", [alert(1)], b"", now())
    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "pending", broken)
        delivery.tick(now())
        delivery.tick(now())
    assert caplog.text.count("could not be read: disk I/O error") == 1 and not sink.tokens
    delivery.tick(now())
    assert sink.tokens == [1]


def test_what_is_retained_is_said_again_to_a_broker_that_forgot(
    stopped_mosquitto: Mosquitto,
    sinks: Callable[..., MqttSink],
    listen: Callable[[int], Listener],
) -> None:
    stopped_mosquitto.start("persistence false")
    sink = sinks(BrokerConfig(stopped_mosquitto.url))
    sink.retain("t/status", b"old")
    wait(lambda: sink.connection)
    first = sink.connection
    sink.retain("t/status", b"new")
    sink.retain("t/state/a", b"OK")
    stopped_mosquitto.restart()
    wait(lambda: sink.connection > first)
    listener = listen(stopped_mosquitto.port)
    wait(lambda: len(listener.messages) == 2)  # live or retained: they may be under way
    listener = listen(stopped_mosquitto.port)
    wait(lambda: len(listener.messages) == 2)
    assert sorted(listener.messages) == [("t/state/a", b"OK", True), ("t/status", b"new", True)]


def test_a_broker_that_restarts_meanwhile_loses_no_alert(
    mosquitto: Mosquitto,
    sinks: Callable[..., MqttSink],
    outbox: Outbox,
) -> None:
    config = BrokerConfig(mosquitto.url)
    subscription = AlertSubscription(config, "consumer", "t/alert/#")
    assert list(subscription.alerts(1.0)) == []  # makes the session
    sink = sinks(config)
    delivery = Delivery(outbox, sink, lambda stream: f"t/alert/{stream}")
    for number in range(1, 61):
        outbox.commit("a", [alert(number)], b"", now())
        delivery.tick(now())
        if number in (20, 40):
            mosquitto.restart()
    pump(delivery, lambda: not delivery.waiting)
    subscription = AlertSubscription(config, "consumer", "t/alert/#")
    assert [a["seq"] for a in subscription.alerts(2.0)] == list(range(1, 61))


def test_farewell_is_retained_and_the_will_is_not_sent(
    mosquitto: Mosquitto, sinks: Callable[..., MqttSink], listen: Callable[[int], Listener]
) -> None:
    sink = sinks(BrokerConfig(mosquitto.url))
    sink.retain("t/status", b"online")
    wait(lambda: sink.connection)
    sink.close(("t/status", b"stopped"), 5)
    listener = listen(mosquitto.port)
    wait(lambda: listener.messages)
    assert listener.messages == [("t/status", b"stopped", True)]


def test_offers_are_forgotten_without_a_connection(
    stopped_mosquitto: Mosquitto,
    sinks: Callable[..., MqttSink],
    listen: Callable[[int], Listener],
) -> None:
    sink = sinks(BrokerConfig(stopped_mosquitto.url))
    sink.offer("t/score/a", b"lost")
    assert not sink.deliver("t/alert/a", b"x", 1)
    stopped_mosquitto.start()
    listener = listen(stopped_mosquitto.port)
    wait(lambda: sink.connection)
    sink.offer("t/score/a", b"sent")
    wait(lambda: listener.messages)
    assert listener.payloads("t/score/a") == [b"sent"]


def test_a_refused_alert_is_kept_said_and_sent_when_it_is_allowed(
    *,
    stopped_mosquitto: Mosquitto,
    sinks: Callable[..., MqttSink],
    outbox: Outbox,
    listen: Callable[[int], Listener],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    acl = stopped_mosquitto.folder / "acl"
    acl.write_text("topic read #\ntopic write t/alert/good\ntopic write t/status\n")
    stopped_mosquitto.start(f"acl_file {acl}")
    monkeypatch.setattr("edge_tsad.runtime.delivery.RETRY_REFUSED_S", 0.3)
    sink = sinks(BrokerConfig(stopped_mosquitto.url))
    delivery = Delivery(outbox, sink, lambda stream: f"t/alert/{stream}")
    outbox.commit("bad", [alert(1)], b"", now())
    outbox.commit("good", [alert(2)], b"", now())
    pump(delivery, lambda: outbox.counts.pending == 1)
    pump(delivery, lambda: delivery.refused)
    assert [row.seq for row in outbox.pending()] == [1]
    assert "Not authorized" in delivery.refused and caplog.text.count("refuses alerts") == 1
    acl.write_text("topic readwrite #\n")
    stopped_mosquitto.restart()
    listener = listen(stopped_mosquitto.port)
    pump(delivery, lambda: not delivery.waiting and not delivery.refused)
    wait(lambda: listener.payloads("t/alert/bad"))


def test_late_alerts_say_so(tmp_path: Path) -> None:
    class Sent:
        connection = 1

        def __init__(self) -> None:
            self.payloads: list[bytes] = []

        def acknowledgements(self) -> list[object]:
            return []

        def deliver(self, topic: str, payload: bytes, token: int) -> bool:
            self.payloads.append(payload)
            return True

    box = Outbox(tmp_path / "o.db", Bounds(), Now(0, 0, "b"))
    box.commit("a", [alert(1)], b"", Now(0, 0, "b"))
    sink = Sent()
    delivery = Delivery(box, sink, str)  # type: ignore[arg-type]
    box.commit("a", [alert(2)], b"", Now(10, 0, "b"))
    box.commit("a", [alert(3)], b"", Now(80, 0, "b"))
    delivery.tick(Now(90, 0, "b"))
    assert [json.loads(p)["late"] for p in sink.payloads] == [True, True, False]
    box.close()
