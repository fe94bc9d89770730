"""Everything that goes wrong between a running gateway and a real broker.

Each test says what a person sees, and that no alert is lost.
"""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from oracles.certificates import Authority
from oracles.gateway_rig import OWN, QUIET, SPIKE, Peer, Rig, wait_for

from edge_tsad.broker import BrokerConfig
from edge_tsad.cli import main
from edge_tsad.runtime.subscription import AlertSubscription

STATE, ALERT, STATUS = f"{OWN}/state/pump", f"{OWN}/alert/pump", f"{OWN}/status"
SECRET = "correct-horse-battery"
Peers = Callable[..., Peer]


def log_of(rig: Rig, words: str) -> Callable[[], bool]:
    return lambda: words in rig.log.read_text()


def numbers(peer: Peer) -> list[int]:
    """The sequence numbers that came, each once."""
    return sorted({alert["seq"] for alert in peer.bodies(ALERT)})


def passwords(rig: Rig, *users: str) -> str:
    """A password file of mosquitto in which all have the same secret; the lines that use it."""
    tool = shutil.which("mosquitto_passwd")
    assert tool, "mosquitto comes with mosquitto_passwd"
    file = rig.folder / "users"
    file.unlink(missing_ok=True)
    for user in users:
        new = [] if file.exists() else ["-c"]
        subprocess.run([tool, *new, "-b", str(file), user, SECRET], check=True)
    file.chmod(0o600)
    return f"allow_anonymous false\npassword_file {file}\n"


def secret(rig: Rig, text: str = SECRET) -> Path:
    file = rig.folder / "secret"
    file.write_text(text + "\n")
    file.chmod(0o600)
    return file


def test_a_broker_that_restarts_again_and_again_loses_nothing(rig: Rig, peers: Peers) -> None:
    rig.broker.start()
    config = BrokerConfig(rig.broker.url)
    assert list(AlertSubscription(config, "all", f"{ALERT}").alerts(0.7)) == []
    rig.start(options=("--verbose",))
    rig.feed(QUIET)
    for count in (1, 2, 3):
        wait_for(lambda n=count: rig.log.read_text().count("connected to the broker") >= n)
        rig.feed(SPIKE)
        rig.broker.restart()
        rig.feed(QUIET)
    seen = AlertSubscription(config, "all", f"{ALERT}").alerts(20, 6)
    assert sorted(alert["seq"] for alert in seen) == list(range(1, 7))
    assert rig.log.read_text().count("the connection was lost") == 3


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_wrong_password_is_said_and_the_alerts_wait(
    protocol: str, rig: Rig, peers: Peers
) -> None:
    rig.broker.start(passwords(rig, "gateway", "watcher"))
    secret(rig, "wrong-horse")
    rig.start(
        broker=f'protocol = "{protocol}"\nusername = "gateway"\npassword_file = "secret"',
        options=("--verbose",),
    )
    rig.feed(QUIET + SPIKE + QUIET)
    wait_for(log_of(rig, "it refuses the connection"))
    peer = peers(rig.broker.port, username="watcher", password=SECRET)
    secret(rig)  # the next attempt reads it
    wait_for(lambda: numbers(peer) == [1, 2], 40)
    wait_for(log_of(rig, "connected to the broker"))
    assert all(alert["late"] is False for alert in peer.bodies(ALERT))
    rig.stop()
    everything = rig.log.read_bytes() + b"".join(
        file.read_bytes() for file in (rig.folder / "data").rglob("*") if file.is_file()
    )
    assert b"horse" not in everything


def test_rights_as_check_prints_them_suffice_and_others_are_refused(rig: Rig, peers: Peers) -> None:
    file = secret(rig)
    tables = '[commands]\nallow = ["replay", "silence"]\n[home_assistant]\ndiscovery = true\n'
    mine = f'username = "gateway"\npassword_file = "{file}"'
    users = passwords(rig, "gateway", "operator", "consumer", "stranger")
    rig.broker.start(users)
    rig.start(tables, broker=mine)
    printed = CliRunner().invoke(main, ["check", str(rig.folder / "gateway.toml"), "--acl"])
    acl = rig.folder / "acl"
    acl.write_text(printed.stdout)
    acl.chmod(0o600)
    rig.broker.start(f"{users}acl_file {acl}")
    login = {"password": SECRET}
    operator = peers(rig.broker.port, username="operator", **login)
    consumer = peers(rig.broker.port, username="consumer", **login)
    stranger = peers(rig.broker.port, "#", username="stranger", **login)
    wait_for(lambda: operator.last(STATUS))
    rig.feed(QUIET + SPIKE)
    wait_for(lambda: consumer.bodies(ALERT))
    assert operator.ask("silence", {"stream": "pump", "for_s": 60})["ok"]
    assert consumer.ask("replay", {"from_seq": 1})["ok"]
    for peer in (consumer, stranger):
        peer.send(f"{OWN}/cmd/silence", {"stream": "pump", "for_s": 0})
    stranger.send(ALERT, {"forged": True})
    wait_for(lambda: len(consumer.bodies(ALERT)) == 2)
    assert operator.last(STATE)["silenced_until"] and "forged" not in str(consumer.bodies(ALERT))
    assert not stranger.messages and not operator.last(STATE)["health"]


def test_a_refused_alert_is_shown_and_sent_when_it_is_allowed(rig: Rig, peers: Peers) -> None:
    acl = rig.folder / "acl"
    health = f"{ALERT}/health"
    acl.write_text(
        "topic read #\n" + "".join(f"topic write {t}\n" for t in (STATUS, STATE, health))
    )
    rig.broker.start(f"acl_file {acl}")
    peer = peers(rig.broker.port)
    rig.start()
    rig.feed(QUIET + SPIKE)
    wait_for(lambda: peer.last(STATE) and peer.last(STATE)["health"] == ["MQTT_REFUSED"], 30)
    status = wait_for(lambda: (s := peer.last(STATUS)) and s["refused"] and s, 30)
    assert status["refused"] == "Not authorized" and status["proof"] == "confirmed"
    assert status["outbox"]["pending"] == 1 and not peer.bodies(ALERT)
    (said,) = wait_for(lambda: peer.bodies(health))
    assert (said["condition"], said["type"]) == ("MQTT_REFUSED", "new")
    assert said["reason"] == "pump: the broker refuses its alerts (Not authorized)."
    acl.write_text("topic readwrite #\n")
    rig.broker.restart()
    again = peers(rig.broker.port)
    wait_for(lambda: numbers(again) == [1])
    wait_for(lambda: again.last(STATE)["health"] == [])
    (over,) = wait_for(lambda: again.bodies(health))
    assert (over["id"], over["type"]) == (said["id"], "end")


def test_under_mqtt_3_the_right_to_publish_is_proven_or_its_absence_said(
    rig: Rig, peers: Peers
) -> None:
    acl = rig.folder / "acl"
    # What mosquitto acknowledges and drops: nobody could tell without the probe.
    acl.write_text(f"topic read #\ntopic write {STATUS}\ntopic write {STATE}\n")
    rig.broker.start(f"acl_file {acl}")
    peer = peers(rig.broker.port)
    rig.start(broker='protocol = "3.1.1"')
    status = wait_for(lambda: (s := peer.last(STATUS)) and s.get("proof") == "unproven" and s, 30)
    wait_for(lambda: "MQTT_UNPROVEN" in peer.last(STATE)["health"])
    assert status["online"]
    assert rig.log.read_text().count("nothing proves that the broker takes") == 1
    acl.write_text("topic readwrite #\n")
    rig.broker.restart()
    again = peers(rig.broker.port)
    wait_for(lambda: (again.last(STATUS) or {}).get("proof") == "proven", 30)
    assert again.last(STATE)["health"] == []


def test_a_half_open_connection_is_noticed_and_nothing_is_lost(rig: Rig, peers: Peers) -> None:
    rig.broker.start()
    config = BrokerConfig(rig.broker.url)
    assert list(AlertSubscription(config, "all", ALERT).alerts(0.7)) == []
    rig.start(broker="keepalive_s = 2")
    rig.feed(QUIET)
    peer = peers(rig.broker.port)
    wait_for(lambda: peer.last(STATE) and peer.last(STATE)["process"] == "OK")
    assert rig.broker._process
    os.kill(rig.broker._process.pid, signal.SIGSTOP)  # its sockets stay open and say nothing
    try:
        rig.feed(SPIKE + QUIET)
        wait_for(log_of(rig, "the connection was lost: Keep alive timeout"), 30)
    finally:
        os.kill(rig.broker._process.pid, signal.SIGCONT)
    seen = AlertSubscription(config, "all", ALERT).alerts(30, 2)
    assert [alert["seq"] for alert in seen] == [1, 2]


def secure(rig: Rig, authority: Authority, days: int = 30) -> str:
    """Lines for a broker that wants client certificates and takes their names for users."""
    certificate, key = authority.issue("broker", days)
    acl = rig.folder / "acl"
    acl.write_text(f"user gateway\ntopic readwrite {OWN}/#\nuser watcher\ntopic read #\n")
    acl.chmod(0o600)
    return (
        f"cafile {authority.file}\ncertfile {certificate}\nkeyfile {key}\n"
        f"require_certificate true\nuse_identity_as_username true\nacl_file {acl}\n"
    )


def tls(authority: Authority, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.file)
    context.load_cert_chain(*authority.issue(name))
    return context


def with_certificate(rig: Rig, certificate: Path, key: Path, authority: Authority) -> str:
    url = rig.broker.url.replace("mqtt://", "mqtts://")
    return (
        f'url = "{url}"\nca_file = "{authority.file}"\n'
        f'certificate_file = "{certificate}"\nkey_file = "{key}"'
    )


def test_tls_with_client_certificates(rig: Rig, peers: Peers) -> None:
    authority = Authority(rig.folder)
    rig.broker.start(secure(rig, authority))
    peer = peers(rig.broker.port, context=tls(authority, "watcher"))
    rig.start(broker=with_certificate(rig, *authority.issue("gateway"), authority))
    rig.feed(QUIET + SPIKE + QUIET)
    wait_for(lambda: numbers(peer) == [1, 2])
    assert peer.last(STATUS)["proof"] == "confirmed"


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("broker", "certificate has expired"),
        # mosquitto 2.0 ends the connection without saying why.
        ("gateway", "perhaps the broker does not accept this client's certificate"),
        ("nobody", "perhaps the broker does not accept this client's certificate"),
    ],
)
def test_a_certificate_that_does_not_do_is_said_and_the_alerts_wait(
    who: str, words: str, rig: Rig, peers: Peers
) -> None:
    authority = Authority(rig.folder)
    rig.broker.start(secure(rig, authority, -1 if who == "broker" else 30))
    files = authority.issue("gateway", -1 if who == "gateway" else 30)
    broker = with_certificate(rig, *files, authority)
    if who == "nobody":
        broker = "\n".join(broker.splitlines()[:2])
    rig.start(broker=broker)
    rig.feed(QUIET + SPIKE + QUIET)
    wait_for(log_of(rig, words))
    if who == "nobody":
        rig.stop()
        rig.start(broker=with_certificate(rig, *files, authority))
    authority.issue("gateway")  # under the same names: the next attempt reads it
    rig.broker.start(secure(rig, authority))
    peer = peers(rig.broker.port, context=tls(authority, "watcher"))
    wait_for(lambda: numbers(peer) == [1, 2], 60)
    assert "not there" in rig.log.read_text() and "Traceback" not in rig.log.read_text()


def test_an_encrypted_or_open_key_is_one_sentence(rig: Rig) -> None:
    authority = Authority(rig.folder)
    certificate, key = authority.issue("gateway")
    key.chmod(0o644)
    rig.start(broker=with_certificate(rig, certificate, key, authority))
    assert rig.process and rig.process.wait(20) == 2
    assert rig.log.read_text().count("\n") == 1 and "chmod 600" in rig.log.read_text()


def test_a_broker_elsewhere_needs_tls_or_insecure(tmp_path: Path) -> None:
    def check(line: str) -> Any:
        file = tmp_path / "g.toml"
        file.write_text(
            f'site = "s"\ndevice = "d"\n[broker]\n{line}\n[[streams]]\nname = "x"\nstep_s = 1\n'
            'channels = ["a"]\nsource.type = "stdin"\n'
        )
        return CliRunner().invoke(main, ["check", str(file)])

    refused = check('url = "mqtt://broker.example"')
    assert refused.exit_code == 2 and "use mqtts:// or set insecure = true" in refused.stderr
    assert check('url = "mqtt://broker.example"\ninsecure = true').exit_code == 0
    assert check('url = "mqtts://broker.example"').exit_code == 0


def test_check_without_systemd_says_that_a_credential_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    file = tmp_path / "g.toml"
    file.write_text(
        'site = "s"\ndevice = "d"\n[broker]\nusername = "u"\n'
        'password_file = "$CREDENTIALS_DIRECTORY/mqtt.password"\n'
        '[[streams]]\nname = "x"\nstep_s = 1\nchannels = ["a"]\nsource.type = "stdin"\n'
    )
    done = CliRunner().invoke(main, ["check", str(file)])
    (line,) = [each for each in done.output.splitlines() if "password_file" in each]
    assert done.exit_code == 2 and "CREDENTIALS_DIRECTORY is not set" in line
    assert "LoadCredential" in line and "Traceback" not in done.output
