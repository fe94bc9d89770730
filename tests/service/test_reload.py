"""Another configuration while it runs: what did not change goes on as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Mosquitto
from oracles import tiny_bundle
from service.gateways import (
    START,
    HandSource,
    Running,
    rows,
    wait_for,
    write_config,
)


def names(running: Running) -> list[str]:
    return [worker.facts.stream for worker in running.gateway.workers]


def samples(running: Running, name: str) -> int:
    return next(w.samples for w in running.gateway.workers if w.facts.stream == name)


def feed(running: Running, name: str, values: list[float], start: int) -> None:
    """Deliver, and wait until it is taken."""
    before = samples(running, name)
    HandSource.wires[name].put(rows(values, start))
    wait_for(lambda: samples(running, name) == before + len(values))


def test_a_stream_that_stays_keeps_its_buffer_and_its_alert(folder: Path) -> None:
    path = write_config(folder, ["pump", "fan"])
    with Running(path) as running:
        feed(running, "pump", [0.5] * 20 + [20.0] * 6, START)
        feed(running, "fan", [0.5] * 9, START)
        pump = running.gateway.workers[0]
        wait_for(lambda: pump.process == "FIRING")
        alert, threshold = pump.alert_id, pump.pipeline.policy.threshold
        write_config(folder, ["saw", "pump"])
        running.gateway.reload()
        wait_for(lambda: names(running) == ["saw", "pump"])
        assert running.gateway.workers[1] is pump and pump.alert_id == alert
        assert (
            pump.pipeline.policy.threshold == threshold
        )  # two streams share the budget, as before
        feed(running, "pump", [20.0] * 2 + [0.5] * 8, START + 26)
        feed(running, "saw", [0.5] * 20, START)
        wait_for(lambda: pump.process == "OK")
        assert pump.pipeline.resampler.late == 0
        topics = [topic for topic, _ in running.sink.delivered]
        wait_for(lambda: len(running.sink.delivered) >= 2)
        sent = [json.loads(p) for t, p in running.sink.delivered if t.endswith("alert/pump")]
        assert [m["type"] for m in sent] == ["new", "end"] and topics
        assert {m["id"] for m in sent} == {alert} and not sent[1]["data_lost"]
        assert running.sink.retained["edge-tsad/plant/gw/state/fan"] == b""


def test_the_budget_is_split_anew(folder: Path) -> None:
    path = write_config(folder, ["pump"])
    with Running(path) as running:
        pump = running.gateway.workers[0]
        before = pump.pipeline.policy.threshold
        write_config(folder, ["pump", "fan"])
        running.gateway.reload()
        wait_for(lambda: len(names(running)) == 2)
        assert pump.pipeline.policy.threshold > before
        assert pump.facts.threshold.value == pump.pipeline.policy.threshold


def test_a_changed_stream_goes_on_from_its_saved_state(folder: Path) -> None:
    path = write_config(folder, ["pump"])
    with Running(path) as running:
        feed(running, "pump", [0.5] * 20, START)
        old = running.gateway.workers[0]
        path.write_text(path.read_text() + "record = true\n")
        running.gateway.reload()
        wait_for(lambda: running.gateway.workers and running.gateway.workers[0] is not old)
        feed(running, "pump", [0.5] * 2, START + 20)
        (pump,) = running.gateway.workers
        assert pump.keeper is not None and pump.process == "OK"


def test_an_alert_of_a_removed_stream_ends(folder: Path) -> None:
    path = write_config(folder, ["pump", "fan"])
    with Running(path) as running:
        feed(running, "fan", [0.5] * 20 + [20.0] * 6, START)
        wait_for(lambda: running.gateway.workers[1].process == "FIRING")
        write_config(folder, ["pump"])
        running.gateway.reload()
        wait_for(lambda: names(running) == ["pump"])
        wait_for(lambda: len(running.sink.delivered) >= 2)
    kinds = [json.loads(p)["type"] for t, p in running.sink.delivered if t.endswith("alert/fan")]
    assert kinds == ["new", "end"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("no toml [", "is no TOML"),
        ('site = "other"\ndevice = "gw"\ndata_dir = "data"\n', "streams: is missing"),
        ("bundle", "gone.tsad: does not exist"),
        ("site", "site: cannot change while the gateway runs; restart it"),
    ],
)
def test_a_bad_file_changes_nothing_and_is_said(
    folder: Path, text: str, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_config(folder, ["pump"])
    good = path.read_text()
    changed = {
        "bundle": good.replace("tiny.tsad", "gone.tsad"),
        "site": good.replace('"plant"', '"mill"'),
    }
    with Running(path) as running:
        feed(running, "pump", [0.5] * 9, START)
        path.write_text(changed.get(text, text))
        running.gateway.reload()
        wait_for(lambda: running.gateway.reloader.problem)
        assert sentence in running.gateway.reloader.problem and sentence in caplog.text
        feed(running, "pump", [0.5] * 9, START + 9)
        path.write_text(good)
        running.gateway.reload()
        wait_for(lambda: not running.gateway.reloader.problem)
        assert samples(running, "pump") == 18


def test_a_hang_up_signal_reloads_a_real_process(mosquitto: Mosquitto, tmp_path: Path) -> None:
    tiny_bundle.make(tmp_path / "tiny.tsad")

    def table(name: str) -> str:
        source = f'{{ type = "mqtt", topic = "{name}/+", broker = {{ url = "{mosquitto.url}" }} }}'
        return f'[[streams]]\nname = "{name}"\nbundle = "tiny.tsad"\nsource = {source}\n'

    head = f'site = "plant"\ndevice = "gw"\ndata_dir = "data"\nbroker.url = "{mosquitto.url}"\n'
    (tmp_path / "gateway.toml").write_text(head + table("pump"))

    def status() -> dict[str, object]:
        out = subprocess.run(
            ["mosquitto_sub", "-p", str(mosquitto.port), "-t", "edge-tsad/plant/gw/status",
             "-C", "1", "-W", "2"], capture_output=True, check=False,
        ).stdout  # fmt: skip
        return dict(json.loads(out or b"{}"))

    process = subprocess.Popen(
        [sys.executable, "-m", "edge_tsad", "run", "gateway.toml"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=dict(os.environ),
    )  # fmt: skip
    try:
        wait_for(lambda: status().get("streams") == ["pump"])
        (tmp_path / "gateway.toml").write_text(head + table("pump") + table("fan"))
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: status().get("streams") == ["pump", "fan"], 40)
    finally:
        process.terminate()
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0 and "the configuration was reloaded: 2 stream(s)" in said
