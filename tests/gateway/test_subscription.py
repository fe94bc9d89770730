"""A subscriber to alerts: nothing missed, nothing twice, and told what is wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from conftest import Mosquitto
from oracles.mqtt_peers import alert, wait
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from edge_tsad.broker import BrokerConfig
from edge_tsad.errors import TransportError
from edge_tsad.runtime.sinks.mqtt import MqttSink
from edge_tsad.runtime.subscription import AlertSubscription


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_subscriber_gets_what_came_while_it_was_away_and_nothing_twice(
    protocol: str, mosquitto: Mosquitto, sinks: Callable[..., MqttSink]
) -> None:
    config = BrokerConfig(mosquitto.url, protocol=protocol)
    assert list(AlertSubscription(config, "consumer", "t/alert/#").alerts(1.0)) == []
    sink = sinks(config)
    wait(lambda: sink.connection)
    for number in (1, 2, 2, 3):
        sink.deliver("t/alert/a", alert(number), number)
    sink.deliver("t/alert/a", b"junk", 9)
    sink.deliver("t/alert/a", b'{"id": 3}', 9)
    wait(lambda: any(a.token == 9 for a in sink.acknowledgements()))
    first = AlertSubscription(config, "consumer", "t/alert/#").alerts(5.0)
    assert next(first)["seq"] == 1
    first.close()  # like a crash while 1 is handled: it was not acknowledged
    again = AlertSubscription(config, "consumer", "t/alert/#").alerts(2.0)
    assert [a["seq"] for a in again] == [1, 2, 3]
    assert list(AlertSubscription(config, "consumer", "t/alert/#").alerts(1.0)) == []


def test_a_subscriber_waits_for_the_broker_and_says_so_once(
    stopped_mosquitto: Mosquitto,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    sinks: Callable[..., MqttSink],
) -> None:
    monkeypatch.setattr("edge_tsad.runtime.subscription.RETRY_S", 0.1)
    config = BrokerConfig(stopped_mosquitto.url)
    subscription = AlertSubscription(config, "consumer", "t/alert/#")
    threading.Timer(1.0, stopped_mosquitto.start).start()

    def publish() -> None:
        sink = sinks(config)
        wait(lambda: sink.connection)
        time.sleep(1)  # the subscription is surely there
        sink.deliver("t/alert/a", alert(1), 1)

    threading.Timer(1.5, publish).start()
    assert next(subscription.alerts(20.0))["seq"] == 1
    assert caplog.text.count("is not there") == 1


def test_two_subscribers_with_one_session_are_told(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edge_tsad.runtime.subscription.RETRY_S", 0.1)
    config = BrokerConfig(mosquitto.url)

    def listen() -> None:
        list(AlertSubscription(config, "same", "t/alert/#").alerts(6.0))

    threads = [threading.Thread(target=listen) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "perhaps another client uses the session same" in caplog.text


def answered(code: int) -> ReasonCode:
    return ReasonCode(PacketTypes.SUBACK, identifier=code)


def test_a_refused_subscription_or_a_lost_session_is_one_sentence(mosquitto: Mosquitto) -> None:
    # mosquitto's ACL file cannot refuse a subscription, and 2.0 does not say who took a session.
    subscription = AlertSubscription(BrokerConfig(mosquitto.url), "x", "t/alert/#")
    subscription._on_subscribe(subscription._client, None, 1, [answered(135)], None)
    with pytest.raises(TransportError, match="refuses the subscription to t/alert/#: Not auth"):
        list(subscription.alerts(5.0))
    subscription = AlertSubscription(BrokerConfig(mosquitto.url), "x", "t/alert/#")
    taken = ReasonCode(PacketTypes.DISCONNECT, identifier=142)
    subscription._on_disconnect(subscription._client, None, None, taken, None)
    with pytest.raises(TransportError, match="another client uses the session x"):
        list(subscription.alerts(5.0))
