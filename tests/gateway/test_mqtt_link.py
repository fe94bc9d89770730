"""The connection to a real broker: whom it trusts, what it says, and that it comes back."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Mosquitto
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from oracles.mqtt_peers import WILL, wait

from edge_tsad.broker import BrokerConfig
from edge_tsad.errors import ConfigError
from edge_tsad.runtime.sinks import link
from edge_tsad.runtime.sinks.link import Link
from edge_tsad.runtime.sinks.mqtt import MqttSink


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
