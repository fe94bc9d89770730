"""What the service manager is told, and when it is told nothing any more."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from oracles import several_files, tiny_bundle
from service.conftest import Manager
from service.gateways import (
    START,
    HandClock,
    HandSource,
    Running,
    Sink,
    make,
    never_wait,
    rows,
    wait_for,
    write_config,
)

from edge_tsad.runtime import apart, gathering, life
from edge_tsad.runtime.feed import Feed
from edge_tsad.runtime.gateway import Gateway
from edge_tsad.runtime.supervisor import Supervisor

DAY_S = 86_400
WATCHDOG_S = 30


def health(sink: Sink) -> list[dict[str, object]]:
    found = [json.loads(payload) for topic, payload in sink.delivered if "/health" in topic]
    return [message for message in found if message.get("condition") == "NO_DATA"]


def test_a_day_of_silence_is_one_alert_and_no_hang(
    folder: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", str(WATCHDOG_S * 1_000_000))
    clock = HandClock()
    gateway, sink = make(write_config(folder, ["pump"]), clock)
    fed: list[float] = []

    def idle() -> None:
        fed.extend(clock.passed_s for message in manager.said() if message == "WATCHDOG=1")
        clock.passed_s += 1
        if clock.passed_s >= DAY_S:
            gateway.stop()

    never_wait(gateway, idle)
    gateway.run()
    gaps = [after - before for before, after in itertools.pairwise(fed)]
    assert fed[-1] > DAY_S - WATCHDOG_S and max(gaps) < WATCHDOG_S / 2
    assert [message["type"] for message in health(sink)] == ["new"]
    assert not gateway.restart and not gateway.errors


def test_without_progress_the_watchdog_starves(
    folder: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    hang, begun = threading.Event(), threading.Event()

    def hanging(gateway: Gateway) -> None:
        backend = gateway.workers[0].stream.backend._backend
        score = backend.score

        def hung(*arguments: Any) -> Any:
            begun.set()
            assert hang.wait(30)
            return score(*arguments)

        monkeypatch.setattr(backend, "score", hung)

    with Running(write_config(folder, ["pump"]), hanging):
        wait_for(lambda: "WATCHDOG=1" in manager.said())
        HandSource.wires["pump"].put(rows([0.5] * 20, START))
        assert begun.wait(10)
        manager.said()
        time.sleep(0.6)
        assert "WATCHDOG=1" not in manager.said()
        hang.set()
        wait_for(lambda: "WATCHDOG=1" in manager.said())


def test_a_source_whose_thread_died_starves_it(
    folder: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.setattr(Feed, "_run", lambda feed: None)
    with Running(write_config(folder, ["pump"])):
        wait_for(lambda: any("READY=1" in message for message in manager.said()))
        time.sleep(0.5)
        assert "WATCHDOG=1" not in manager.said()


def test_nobody_is_told_where_nobody_listens() -> None:
    silent = Supervisor({})
    silent.ready("x")
    silent.alive(1.0)
    assert silent.watchdog_s == 0
    other = Supervisor({"NOTIFY_SOCKET": "/none", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"})
    assert other.watchdog_s == 0


def test_a_manager_that_does_not_listen_holds_nobody_up(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = Supervisor()
    for _ in range(5000):
        supervisor.status("x" * 200)
    assert caplog.text.count("cannot be told") == 1
    assert manager.said()


def test_a_real_run_says_ready_alive_and_stopping(tmp_path: Path, manager: Manager) -> None:
    tiny_bundle.make(tmp_path / "tiny.tsad")
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_tsad", "run", "--bundle", "tiny.tsad", "--source", "stdin",
         "--data-dir", "data", "--broker", "mqtt://127.0.0.1:1"],
        cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "WATCHDOG_USEC": "400000"},
    )  # fmt: skip
    heard: list[str] = []

    def hears(word: str) -> bool:
        heard.extend(manager.said())
        return any(word in message for message in heard)

    wait_for(lambda: hears("READY=1"))
    wait_for(lambda: hears("WATCHDOG=1"))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert hears("STOPPING=1")
    assert heard[0].startswith("READY=1 STATUS=tiny WARMING_UP; no broker; 0 alert(s) waiting")


def test_memory_that_grows_is_a_planned_restart_with_all_state(
    folder: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    path = write_config(folder, ["pump"], "[service]\nmax_rss_mb = 100")
    used, heard = [50.0], list[str]()
    monkeypatch.setattr(life, "rss_mb", lambda: used[0])
    # Time stands still here while a sample is under way, so none may wait for others.
    monkeypatch.setattr(gathering, "LONGEST_S", 0.0)

    def play(gateway: Gateway, values: list[float]) -> None:
        """A value a second; then time goes on until the gateway ends, or is stopped."""
        left = [rows([value], int(START + clock.passed_s) + i) for i, value in enumerate(values)]

        def idle() -> None:
            time.sleep(0.001)
            heard.extend(manager.said())
            if gateway.workers[0].samples + len(left) < len(values):
                return  # one is under way
            if left:
                HandSource.wires["pump"].put(left.pop(0))
            clock.passed_s += 1
            if not left and used[0] < 100:
                gateway.stop()

        never_wait(gateway, idle)
        gateway.run()

    gateway, _ = make(path, clock)
    used[0] = 150.0
    play(gateway, [0.5] * 20 + [20.0] * 4)
    assert gateway.restart and gateway.workers[0].process == "FIRING"
    heard += manager.said()
    assert any(message.startswith("RELOADING=1 MONOTONIC_USEC=") for message in heard)
    assert not any("STOPPING=1" in message for message in heard)
    used[0] = 50.0
    again, sink = make(path, clock)
    assert again.workers[0].process == "FIRING"
    play(again, [0.5] * 30)
    kinds = [json.loads(p)["type"] for t, p in sink.delivered if "/health" not in t]
    assert kinds[-1] == "end"


SLOW = """import sys, time
from edge_tsad.runtime import apart
examine = apart.examine
apart.examine = lambda *arguments: (time.sleep(2.5), examine(*arguments))[1]
apart.main()
"""


def test_model_files_that_are_timed_for_long_do_not_starve_it(
    folder: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    several_files.make(folder, {"a.onnx": several_files.fast(), "b.onnx": several_files.slow()})
    path = write_config(folder, ["pump"], bundle="tiny-1.0.0")
    run = apart.run

    def slowly(command: list[str], meanwhile: Callable[[], None]) -> Any:
        code = [command[0], "-c", SLOW, *command[command.index("edge_tsad.runtime.apart") + 1 :]]
        return run(code, meanwhile)

    monkeypatch.setattr(apart, "run", slowly)
    with Running(path):
        assert "WATCHDOG=1" in list(
            itertools.takewhile(lambda m: "READY=1" not in m, heard(manager))
        )


def heard(manager: Manager) -> Iterator[str]:
    """What is said from now on."""
    while True:
        yield from manager.said()
        time.sleep(0.01)


WARM, HIGH = [0.5] * 20, [20.0] * 8
GREEDY = """
import threading, time
from pathlib import Path
from edge_tsad.cli import main
from edge_tsad.runtime import life

def eat():
    while not Path("grow").exists():
        time.sleep(0.05)
    Path("grow").unlink()
    eaten.append(bytearray(300_000_000))
    eaten[0][::4096] = b"x" * len(eaten[0][::4096])

eaten = []
threading.Thread(target=eat, daemon=True).start()
life.LEAST_UPTIME_S, life.LOOK_EVERY_S = 0.0, 0.2
main()
"""


def test_a_real_process_that_grows_becomes_itself_again_and_loses_nothing(
    tmp_path: Path, manager: Manager
) -> None:
    tiny_bundle.make(tmp_path / "tiny.tsad")
    sockets = contextlib.ExitStack()
    line = sockets.enter_context(socket.create_server(("127.0.0.1", 0)))
    line.settimeout(60)
    port = line.getsockname()[1]

    (tmp_path / "gateway.toml").write_text(
        f"""site = "plant"
device = "gw"
data_dir = "data"
service = {{ max_rss_mb = 350 }}
broker = {{ url = "mqtt://127.0.0.1:1", drain_s = 0 }}
[[streams]]
name = "pump"
bundle = "tiny.tsad"
health = {{ off = ["STUCK", "CLOCK", "NO_DATA"] }}
source = {{ type = "serial", port = "socket://127.0.0.1:{port}" }}
"""
    )
    said: list[str] = []

    def hears(word: str) -> bool:
        said.extend(manager.said())
        return any(word in message for message in said)

    process = subprocess.Popen(
        [sys.executable, "-c", GREEDY, "run", "gateway.toml"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wire = sockets.enter_context(line.accept()[0])
        send(wire, [*WARM, *HIGH], START, lambda: hears("pump FIRING"))
        (tmp_path / "grow").touch()
        wait_for(lambda: hears("RELOADING=1"), 60)
        again = sockets.enter_context(line.accept()[0])  # the same process, from its beginning
        said.clear()
        wait_for(lambda: hears("READY=1 STATUS=pump FIRING"), 60)
        assert process.poll() is None and not hears("STOPPING=1")
        send(again, [*HIGH, *WARM], START + len(WARM) + len(HIGH), lambda: hears("pump OK"))
    finally:
        process.terminate()
        _, log = process.communicate(timeout=60)
        sockets.close()
    assert "the gateway saves its state and begins anew" in log and "Traceback" not in log
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "outbox.db")) as db:
        found = [json.loads(row[0]) for row in db.execute("SELECT payload FROM alerts")]
    assert [message["type"] for message in found] == ["new", "end"]
    assert found[0]["id"] == found[1]["id"]


def send(wire: socket.socket, values: list[float], start: int, arrived: Callable[[], bool]) -> None:
    """One a second as lines with their times, again and again until they have ``arrived``.

    What comes while a port is being opened is lost, and the first line after that is left out.
    """
    lines = [f"{start + i},{value},0\n" for i, value in enumerate([values[0], *values], -1)]
    for _ in range(60):
        wire.sendall("".join(lines).encode())
        with contextlib.suppress(AssertionError):
            wait_for(arrived, 1)
            return
    raise AssertionError("waited in vain")
