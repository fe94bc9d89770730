"""``edge-tsad run`` as a process, with a real broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import Mosquitto
from oracles import several_files, tiny_bundle

from edge_tsad.broker import BrokerConfig
from edge_tsad.cli import main
from edge_tsad.cli.run import config_from_options
from edge_tsad.config import parse_config
from edge_tsad.runtime.subscription import AlertSubscription
from edge_tsad.types import Channel, Timing

COMMAND = [sys.executable, "-m", "edge_tsad"]
START = 1_800_000_000
VALUES = [0.5] * 20 + [20.0] * 6 + [0.5] * 20


def write_csv(path: Path, values: list[float] = VALUES, start: int = START) -> Path:
    lines = [f"{start + i},{value},0" for i, value in enumerate(values)]
    path.write_text("\n".join(["time,flow,pressure", *lines, ""]))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_bundle.make(tmp_path / "tiny.tsad")
    write_csv(tmp_path / "x.csv")
    return tmp_path


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts ``edge-tsad …`` in the folder; what still runs at the end is killed."""
    running: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=folder,
            text=True,
            env={**os.environ, "XDG_STATE_HOME": str(folder / "state")},
            **pipes,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str], timeout_s: float = 30) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=timeout_s)
    return process.returncode, out, err


def options(broker: Mosquitto, source: str = "csv:x.csv", speed: str = "max") -> list[str]:
    fast = ["--speed", speed] if speed else []
    names = ["--site", "plant", "--device", "gw", "--stream", "pump"]
    return [
        "run",
        "--bundle",
        "tiny.tsad",
        "--source",
        source,
        *fast,
        *names,
        "--broker",
        broker.url,
    ]


def subscribe(broker: Mosquitto, name: str = "test") -> AlertSubscription:
    """A persistent session that is there when this returns."""
    config = BrokerConfig(broker.url)
    list(AlertSubscription(config, name, "edge-tsad/#").alerts(0.7))
    return AlertSubscription(config, name, "edge-tsad/plant/gw/alert/#")


def retained(broker: Mosquitto) -> dict[str, Any]:
    """All retained messages by topic."""
    lines = subprocess.run(
        ["mosquitto_sub", "-p", str(broker.port), "-t", "#", "-W", "1", "-F", "%t %p"],
        capture_output=True, text=True, check=False,
    ).stdout.splitlines()  # fmt: skip
    return {line.partition(" ")[0]: json.loads(line.partition(" ")[2]) for line in lines}


def kinds(alerts: list[dict[str, Any]]) -> list[str]:
    return [alert["type"] for alert in alerts]


def wait_for(condition: Callable[[], object], limit_s: float = 20) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_spike_in_a_file_becomes_two_lines_of_a_subscriber(
    mosquitto: Mosquitto, start: Start, folder: Path
) -> None:
    subscriber = start(
        "alerts", "--broker", mosquitto.url, "--site", "plant", "--json", "--count", "2",
        "--timeout", "30",
    )  # fmt: skip
    wait_for(lambda: "edge-tsad-alerts" in mosquitto.log())
    code, out, err = finish(start(*options(mosquitto), "--stats", "stats.json"))
    assert (code, out, err) == (0, "", "")
    code, out, err = finish(subscriber)
    assert (code, err) == (0, "")
    new, end = map(json.loads, out.splitlines())
    assert kinds([new, end]) == ["new", "end"] and new["id"] == end["id"]
    assert new["onset"] == "2027-01-15T08:00:20.000Z" and not new["late"]
    stats = json.loads((folder / "stats.json").read_text())
    pump = stats["streams"]["pump"]
    assert pump["samples"] == len(VALUES) and pump["alerts"] == {"new": 1, "end": 1}
    assert pump["windows"] > 30 and 0 < pump["latency_ms"]["p50"] <= pump["latency_ms"]["p99"]
    assert 20 < stats["peak_rss_mb"] < 300 and stats["outbox"]["pending"] == 0
    said = retained(mosquitto)
    assert said["edge-tsad/plant/gw/status"] == {"online": False, "reason": "stopped"}
    state = said["edge-tsad/plant/gw/state/pump"]
    assert state["process"] == "OK" and state["health"] == ["SOURCE_ENDED"]
    assert (folder / "state/edge-tsad/plant/gw/outbox.db").exists()


def test_a_configuration_file_does_the_same_for_several_streams(
    mosquitto: Mosquitto, start: Start, folder: Path
) -> None:
    (folder / "gateway.toml").write_text(f"""
site = "plant"
device = "gw"
data_dir = "data"
[broker]
url = "{mosquitto.url}"
protocol = "3.1.1"
[[streams]]
name = "one"
bundle = "tiny.tsad"
source = {{ type = "csv", path = "x.csv", speed = "max" }}
[[streams]]
name = "two"
bundle = "tiny.tsad"
source = {{ type = "csv", path = "x.csv", speed = 100 }}
""")
    subscription = subscribe(mosquitto)
    assert finish(start("run", "gateway.toml"))[::2] == (0, "")
    alerts = list(subscription.alerts(2))
    assert sorted((a["stream"], a["type"]) for a in alerts) == [
        ("one", "end"), ("one", "new"), ("two", "end"), ("two", "new"),
    ]  # fmt: skip
    assert sorted(alert["seq"] for alert in alerts) == [1, 2, 3, 4]
    assert (folder / "data/outbox.db").exists() and (folder / "data/state/two.npz").exists()


def test_alerts_wait_in_the_outbox_for_a_broker_that_is_down(
    stopped_mosquitto: Mosquitto, start: Start, folder: Path
) -> None:
    (folder / "gateway.toml").write_text(f"""
site = "plant"
device = "gw"
data_dir = "data"
broker = {{ url = "{stopped_mosquitto.url}", drain_s = 0.5 }}
[[streams]]
name = "pump"
bundle = "tiny.tsad"
source = {{ type = "csv", path = "x.csv", speed = "max" }}
""")
    code, _, err = finish(start("run", "gateway.toml"))
    assert code == 0 and err.count("is not there") == 1
    assert "2 alert(s) stay in the outbox" in err
    stopped_mosquitto.start()
    subscription = subscribe(stopped_mosquitto)
    write_csv(folder / "x.csv", [0.5] * 5, START + 1000)
    assert finish(start("run", "gateway.toml"))[0] == 0
    alerts = list(subscription.alerts(2))
    assert kinds(alerts) == ["new", "end"] and all(alert["late"] for alert in alerts)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_stops_it_cleanly(
    number: signal.Signals, status: int, mosquitto: Mosquitto, start: Start, folder: Path
) -> None:
    process = start(*options(mosquitto, speed="1"), "--stats", "stats.json")
    topic = "edge-tsad/plant/gw/status"
    wait_for(lambda: retained(mosquitto).get(topic, {}).get("online"))
    process.send_signal(number)
    assert finish(process)[::2] == (status, "")
    assert retained(mosquitto)[topic] == {"online": False, "reason": "stopped"}
    assert json.loads((folder / "stats.json").read_text())["streams"]["pump"]["samples"] < 30


def test_a_kill_lets_the_broker_publish_the_will_and_the_next_run_resumes(
    mosquitto: Mosquitto, start: Start, folder: Path
) -> None:
    subscription = subscribe(mosquitto)
    process = start(*options(mosquitto, "stdin", ""), stdin=subprocess.PIPE)
    assert process.stdin
    for i, value in enumerate([0.5] * 20 + [20.0] * 6):
        process.stdin.write(f"{START + i},{value},0\n")
    process.stdin.flush()
    alerts = subscription.alerts(20)
    new = next(alerts)
    process.kill()
    wait_for(
        lambda: (
            retained(mosquitto)["edge-tsad/plant/gw/status"] == {"online": False, "reason": "lost"}
        )
    )
    process = start(*options(mosquitto, "stdin", ""), stdin=subprocess.PIPE)
    text = "".join(f"{START + 30 + i},0.5,0\n" for i in range(30))
    assert process.communicate(text, timeout=30)[1] == ""
    end = next(alert for alert in alerts if alert["type"] == "end")
    assert (new["id"], end["seq"]) == (end["id"], new["seq"] + 1)
    alerts.close()


def test_standard_input_and_dirt(mosquitto: Mosquitto, start: Start) -> None:
    subscription = subscribe(mosquitto)
    process = start(*options(mosquitto, "stdin", ""), stdin=subprocess.PIPE)
    lines = [f"{START + i},{value},0" for i, value in enumerate(VALUES)]
    lines[3:3] = ["junk", "1,2", "{", '{"flow": 1e999}']
    _, err = process.communicate("\n".join(lines), timeout=30)
    assert process.returncode == 0
    assert err.count("further ones are only counted") == 1 and len(err.splitlines()) == 1
    assert kinds(list(subscription.alerts(1.5))) == ["new", "end"]
    assert "MALFORMED" in retained(mosquitto)["edge-tsad/plant/gw/state/pump"]["health"]


def test_scores_are_published(mosquitto: Mosquitto, start: Start) -> None:
    listener = subprocess.Popen(
        ["mosquitto_sub", "-p", str(mosquitto.port), "-t", "edge-tsad/+/+/score/#", "-C", "1",
         "-W", "20"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    process = start(*options(mosquitto, speed="10"))
    out, _ = listener.communicate(timeout=30)
    score = json.loads(out)
    assert score["score"] == pytest.approx(0.5) and score["threshold"] > 1 and score["time"]
    process.kill()


def test_two_runs_do_not_share_a_data_folder(mosquitto: Mosquitto, start: Start) -> None:
    first = start(*options(mosquitto, speed="1"))
    wait_for(lambda: retained(mosquitto))
    code, _, err = finish(start(*options(mosquitto)))
    assert code == 2 and "is in use by another run" in err and len(err.splitlines()) == 1
    first.terminate()
    assert finish(first)[0] == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--source", "csv:no.csv"], "streams[0] (pump): no.csv: cannot be read"),
        (["--source", "modbus"], "--source: 'modbus' is none of"),
        (["--source", "csv"], "source.path: is missing"),
        (["--bundle", "no.tsad"], "streams[0] (pump): no.tsad: does not exist"),
        (["--bundle", "x.csv"], "streams[0] (pump): x.csv: "),
        (["--speed", "quick"], "--speed: 'quick' is neither"),
        (["--speed", "-1"], "source.speed: -1.0 is not positive"),
        (["--site", "a/b"], "gateway.site: 'a/b' is not"),
        (["--broker", "mqtt://10.1.2.3"], "broker.url: 10.1.2.3 is not this machine"),
        (["--broker", "localhost"], "broker.url: 'localhost' is not of the form"),
        (["--budget", "often"], "streams[0] (pump): "),
        (["--source", "system"], "--speed: is only for a replay"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    change: list[str],
    sentence: str,
    stopped_mosquitto: Mosquitto,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    result = CliRunner().invoke(main, [*options(stopped_mosquitto), *change])
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("edge-tsad: ") and sentence in result.stderr
    assert not (folder / "state").exists()


def test_a_bundle_that_computes_something_else_here_is_one_sentence(
    stopped_mosquitto: Mosquitto, start: Start, folder: Path
) -> None:
    several_files.make(folder, {"wrong.onnx": several_files.wrong()}).rename(folder / "tiny.tsad")
    code, out, err = finish(start(*options(stopped_mosquitto)))
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert "streams[0] (pump): no model file of the bundle computes here what it should" in err
    assert "wrong.onnx on onnxruntime" in err and not (folder / "state").exists()


def test_a_file_of_other_columns_is_one_sentence(
    stopped_mosquitto: Mosquitto, start: Start, folder: Path
) -> None:
    (folder / "x.csv").write_text("time,level\n1,2\n")
    code, _, err = finish(start(*options(stopped_mosquitto)))
    assert code == 2 and "has no column 'flow', 'pressure'; its columns are 'time', 'level'" in err


def test_a_file_and_options_exclude_each_other(start: Start) -> None:
    code, _, err = finish(start("run", "gateway.toml", "--site", "x"))
    assert code == 2 and "--site cannot be given beside the file gateway.toml" in err
    code, _, err = finish(start("run"))
    assert code == 2 and "give a CONFIG file, or --bundle and --source" in err
    code, _, err = finish(start("run", "gateway.toml"))
    assert code == 2 and "gateway.toml: does not exist" in err


def test_options_build_the_same_object_as_a_file(folder: Path) -> None:
    built = config_from_options(
        bundle=folder / "tiny.tsad", source=f"csv:{folder}/x.csv", speed="5",
        broker="mqtt://localhost:1234", site="s", device="d", stream="n", budget="1/24h",
        data_dir=folder / "data",
    )  # fmt: skip
    text = """
site = "s"
device = "d"
data_dir = "data"
budget = "1/24h"
broker.url = "mqtt://localhost:1234"
[[streams]]
name = "n"
bundle = "tiny.tsad"
source = { type = "csv", path = "x.csv", speed = 5 }
"""
    assert built == parse_config(text, folder)


def test_the_gateway_watches_itself(mosquitto: Mosquitto, start: Start, folder: Path) -> None:
    channels = (Channel("cpu_percent", "%"), Channel("memory_percent", "%"))
    tiny_bundle.make(folder / "tiny.tsad", Timing(10**8, 8, 1, 2, 1, 4), channels)
    process = start(*options(mosquitto, "system", ""), "--stats", "stats.json")
    topic = "edge-tsad/plant/gw/state/pump"
    wait_for(lambda: retained(mosquitto).get(topic, {}).get("process") in ("OK", "FIRING"))
    process.send_signal(signal.SIGTERM)
    assert finish(process)[::2] == (0, "")
    pump = json.loads((folder / "stats.json").read_text())["streams"]["pump"]
    assert pump["points_scored"] > 0 and pump["rejected"] == pump["late"] == 0


def test_data_without_a_rate(mosquitto: Mosquitto, start: Start, folder: Path) -> None:
    timing = Timing(10**9, 8, 1, 2, 1, 4, has_rate=False)
    tiny_bundle.make(folder / "tiny.tsad", timing)
    (folder / "x.csv").write_text("".join(f"{value},0\n" for value in VALUES))
    subscription = subscribe(mosquitto)
    assert finish(start(*options(mosquitto)))[::2] == (0, "")
    new, end = subscription.alerts(1.5)
    assert (new["onset"], new["onset_index"]) == (None, 20)
    assert kinds([new, end]) == ["new", "end"]
