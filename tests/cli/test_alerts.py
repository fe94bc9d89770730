"""``edge-tsad alerts`` as a process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Mosquitto
from paho.mqtt import publish

from edge_tsad.cli.alerts import human_line

COMMAND = [sys.executable, "-m", "edge_tsad", "alerts"]
ALERT = {
    "id": "a1", "seq": 1, "type": "new", "late": False, "site": "plant", "device": "gw",
    "stream": "pump", "time": "2027-01-15T08:00:20.000Z", "index": 5, "reason": "pump is odd.",
}  # fmt: skip
TOPIC = "edge-tsad/plant/gw/alert/pump"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the numbers that a consumer has seen are kept."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))


def send(broker: Mosquitto, topic: str = TOPIC, **changes: object) -> None:
    publish.single(topic, json.dumps({**ALERT, **changes}), qos=1, port=broker.port,
                   hostname="127.0.0.1")  # fmt: skip


def run(broker: Mosquitto, *arguments: str, timeout_s: float = 30) -> Any:
    return subprocess.run(
        [*COMMAND, "--broker", broker.url, *arguments],
        capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip


def test_what_came_meanwhile_is_printed_once(mosquitto: Mosquitto) -> None:
    assert run(mosquitto, "--timeout", "1").stdout == ""
    send(mosquitto)
    send(mosquitto)
    send(mosquitto, seq=2, type="end", late=True)
    send(mosquitto, "edge-tsad/other/gw/alert/x", site="other", seq=3)
    result = run(mosquitto, "--timeout", "1.5")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "2027-01-15T08:00:20.000Z NEW    plant/gw pump is odd.",
        "2027-01-15T08:00:20.000Z END    plant/gw (late) pump is odd.",
        "2027-01-15T08:00:20.000Z NEW    other/gw pump is odd.",
    ]
    assert run(mosquitto, "--timeout", "1").stdout == ""


def test_json_of_one_site_and_device_up_to_a_count(mosquitto: Mosquitto) -> None:
    limits = ("--site", "plant", "--device", "gw", "--json", "--client-id", "mine")
    assert run(mosquitto, *limits, "--timeout", "1").returncode == 0
    send(mosquitto, "edge-tsad/plant/other/alert/pump", id="no")
    for seq in (1, 2, 3):
        send(mosquitto, seq=seq)
    result = run(mosquitto, *limits, "--count", "2", "--timeout", "20")
    assert [json.loads(line)["seq"] for line in result.stdout.splitlines()] == [1, 2]
    # The third may have been delivered, but nobody handled it.
    result = run(mosquitto, *limits, "--count", "5", "--timeout", "1.5")
    assert [json.loads(line)["seq"] for line in result.stdout.splitlines()] == [3]
    assert result.returncode == 1 and "of 5 alerts came in 1.5 s" in result.stderr


@pytest.mark.parametrize("names", [(), ("--client-id", "mine")])
def test_a_narrower_filter_is_kept_after_a_wider_one(
    mosquitto: Mosquitto, names: tuple[str, ...]
) -> None:
    assert run(mosquitto, *names, "--timeout", "1").stdout == ""
    site = (*names, "--site", "plant", "--json")
    assert run(mosquitto, *site, "--timeout", "1").stdout == ""
    send(mosquitto, "edge-tsad/other/gw/alert/x", site="other", id="no")
    send(mosquitto)
    result = run(mosquitto, *site, "--timeout", "1.5")
    assert [json.loads(line)["site"] for line in result.stdout.splitlines()] == ["plant"]
    everything = run(mosquitto, *names, "--json", "--timeout", "1.5").stdout.splitlines()
    # Filters of the default name have sessions of their own; a chosen name has one for all.
    assert len(everything) == (0 if names else 2)


def test_a_broker_that_is_down_is_waited_for_and_said_once(
    stopped_mosquitto: Mosquitto,
) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--broker", stopped_mosquitto.url, "--count", "1", "--timeout", "40"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(4)
    stopped_mosquitto.start()
    end = time.monotonic() + 20
    while "edge-tsad-alerts" not in stopped_mosquitto.log() and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(0.5)
    send(stopped_mosquitto)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out.count("pump is odd")) == (0, 1)
    assert err.count("is not there") == 1 and "connected" in err


def test_ctrl_c_ends_it_with_130_and_no_traceback(mosquitto: Mosquitto) -> None:
    # A shell's background job, as which tests may run, ignores the signal and hands that down.
    default = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [*COMMAND, "--broker", mosquitto.url], stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, default)
    while "edge-tsad-alerts" not in mosquitto.log():
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10)[1].strip() == "" and process.returncode == 130


def test_bad_options_are_one_sentence(stopped_mosquitto: Mosquitto) -> None:
    result = run(stopped_mosquitto, "--broker", "mqtt://10.0.0.1")
    assert result.returncode == 2 and "use mqtts://" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("reason", ["\x1b[2J\x1b]0;x\x07", "a\nb\rc", "\x9b1m"])
def test_nobody_commands_the_terminal(reason: str) -> None:
    line = human_line({**ALERT, "reason": reason})
    assert line.isprintable()


def test_a_line_without_a_time_names_the_point() -> None:
    assert human_line({**ALERT, "time": None}).startswith("point 5 NEW")
