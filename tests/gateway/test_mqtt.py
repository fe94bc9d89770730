"""The connection to a real broker: it comes back, repeats what is retained, and settles."""

from __future__ import annotations

import datetime
import ipaddress
import json
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Mosquitto
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from paho.mqtt import client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from edge_tsad.broker import BrokerConfig
from edge_tsad.errors import ConfigError, TransportError
from edge_tsad.runtime.delivery import Delivery
from edge_tsad.runtime.outbox import Bounds, Outbox
from edge_tsad.runtime.sinks import link
from edge_tsad.runtime.sinks.link import Link
from edge_tsad.runtime.sinks.mqtt import MqttSink
from edge_tsad.runtime.subscription import AlertSubscription
from edge_tsad.types import Now

WILL = ("t/status", b'{"online":false}')


def wait(condition: Callable[[], object], limit_s: float = 15) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def now() -> Now:
    return Now(time.monotonic(), time.time_ns(), "boot")


class Listener:
    """A plain subscriber to everything."""

    def __init__(self, port: int) -> None:
        self.messages: list[tuple[str, bytes, bool]] = []
        self._subscribed = threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.client.on_connect = lambda c, *_: c.subscribe("#", qos=1)
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.on_message = lambda _c, _u, m: self.messages.append(
            (m.topic, m.payload, m.retain)
        )
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self._subscribed.wait(10)

    def payloads(self, topic: str) -> list[bytes]:
        return [payload for where, payload, _ in list(self.messages) if where == topic]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def listen() -> Iterator[Callable[[int], Listener]]:
    made: list[Listener] = []

    def make(port: int) -> Listener:
        made.append(Listener(port))
        return made[-1]

    yield make
    for listener in made:
        listener.close()


@pytest.fixture
def sinks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., MqttSink]]:
    """Makes started sinks that retry quickly, and closes them."""
    monkeypatch.setattr(link, "FIRST_DELAY_S", 0.05)
    monkeypatch.setattr(link, "LONGEST_DELAY_S", 0.2)
    made: list[MqttSink] = []

    def make(config: BrokerConfig) -> MqttSink:
        sink = MqttSink(config, "sink", WILL)
        made.append(sink)
        sink.start()
        return sink

    yield make
    for sink in made:
        sink.close(None, 3)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path / "outbox.db", Bounds(), now())
    yield box
    box.close()


def pump(delivery: Delivery, until: Callable[[], object], limit_s: float = 15) -> None:
    def step() -> object:
        delivery.sink.tick()
        delivery.tick(now())
        return until()

    wait(step, limit_s)


def alert(number: int) -> bytes:
    return json.dumps({"id": "x", "seq": number, "late": False}).encode()


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


def test_each_new_reason_is_said_once_until_connected(
    mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    sink = MqttSink(BrokerConfig(mosquitto.url), "other", WILL)
    for reason in ("no route", "not authorised", "no route", "not authorised"):
        sink._link._say_down(reason)
    assert caplog.text.count("(no route)") == caplog.text.count("(not authorised)") == 1
    sink.start()
    wait(lambda: sink.connection)
    sink._link._say_down("no route")
    assert caplog.text.count("(no route)") == 2
    sink.close(None, 3)


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


def password_file(folder: Path) -> Path | None:
    tool = shutil.which("mosquitto_passwd")
    if tool is None:
        return None
    file = folder / "passwords"
    subprocess.run([tool, "-b", "-c", str(file), "gateway", "right"], check=True)
    file.chmod(0o644)
    return file


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_wrong_password_is_said_once_and_tried_again(
    protocol: str,
    stopped_mosquitto: Mosquitto,
    sinks: Callable[..., MqttSink],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    passwords = password_file(stopped_mosquitto.folder)
    assert passwords, "mosquitto comes with mosquitto_passwd"
    stopped_mosquitto.start(f"allow_anonymous false\npassword_file {passwords}")
    secret = tmp_path / "secret"
    secret.write_text("wrong\n")
    secret.chmod(0o600)
    config = BrokerConfig(
        stopped_mosquitto.url, protocol=protocol, username="gateway", password_file=str(secret)
    )
    sink = sinks(config)
    wait(lambda: "refuses the connection" in caplog.text)
    time.sleep(0.5)
    assert caplog.text.count("is not there") == 1 and "wrong" not in caplog.text
    secret.write_text("right\n")
    wait(lambda: sink.connection)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    today = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = (folder / "cert.pem", folder / "key.pem")
    files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tls_is_verified(
    stopped_mosquitto: Mosquitto,
    sinks: Callable[..., MqttSink],
    caplog: pytest.LogCaptureFixture,
) -> None:
    cert, key = certificate(stopped_mosquitto.folder)
    stopped_mosquitto.start(f"certfile {cert}\nkeyfile {key}")
    url = stopped_mosquitto.url.replace("mqtt://", "mqtts://")
    stranger = sinks(BrokerConfig(url))
    wait(lambda: "certificate verify failed" in caplog.text.lower().replace("_", " "))
    assert not stranger.connection
    sink = sinks(BrokerConfig(url, ca_file=str(cert)))
    wait(lambda: sink.connection)


def test_files_that_cannot_be_read_are_found_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ca_file"):
        MqttSink(BrokerConfig("mqtts://localhost", ca_file=str(tmp_path / "no")), "x", WILL)
    config = BrokerConfig(username="u", password_file=str(tmp_path / "no"))
    with pytest.raises(ConfigError, match="does not exist"):
        MqttSink(config, "x", WILL)


def test_a_broker_that_does_not_answer_is_left(
    sinks: Callable[..., MqttSink],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(link, "CONNECT_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        sinks(BrokerConfig(f"mqtt://127.0.0.1:{server.getsockname()[1]}"))
        wait(lambda: "does not answer" in caplog.text)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_is_started_again(
    mosquitto: Mosquitto,
    sinks: Callable[..., MqttSink],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def die(self: Link) -> bool:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Link, "_connect_once", die)
        sink = sinks(BrokerConfig(mosquitto.url))
        assert sink._link._thread is not None
        sink._link._thread.join(5)
        assert not sink.connection
    sink.tick()
    wait(lambda: sink.connection)
    assert "started again" in caplog.text


def test_a_failing_callback_does_not_end_the_connection(
    mosquitto: Mosquitto,
    sinks: Callable[..., MqttSink],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = sinks(BrokerConfig(mosquitto.url))
    wait(lambda: sink.connection)
    with monkeypatch.context() as patch:
        patch.setattr(Link, "_on_publish", lambda *_: 1 / 0)
        sink.deliver("t/alert/a", b"1", 1)
        wait(lambda: "an MQTT callback failed" in caplog.text)
    sink.deliver("t/alert/a", b"2", 2)
    wait(lambda: [a.token for a in sink.acknowledgements()] == [2])


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
