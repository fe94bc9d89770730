"""The unit under a real systemd: ready, reloaded, hung, killed, begun anew, stopped."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from oracles import tiny_bundle
from service.gateways import wait_for
from service.namespace import HOME, Machine, machine, missing

from edge_tsad.types import Timing

WHY_NOT = missing()
pytestmark = [
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
    pytest.mark.timeout(300),
]
TIMING = Timing(step_ns=10**8, window=8, hop=1, delay=2, smoothing=1, period=4)
DATA = Path("/var/lib/edge-tsad")
SHORT = "WatchdogSec=3s\nRestartSec=200ms\n"
EXECUTABLE = f"""#!/bin/sh
exec /run/edge/python/bin/{Path(sys.executable).resolve().name} -P /run/edge/shim.py "$@" -v
"""
SHIM = '''"""The command itself, with an inference that hangs while a file says so."""
import sys, time
from pathlib import Path
from edge_tsad.cli import main
from edge_tsad.runtime.backends.onnxruntime import OnnxRuntimeBackend

score = OnnxRuntimeBackend.score

def hanging(self, *arguments):
    while Path("/run/edge/hang").exists():
        time.sleep(1)
    return score(self, *arguments)

OnnxRuntimeBackend.score = hanging
main()
'''
CONFIG = """site = "plant"
device = "gw"
data_dir = "/var/lib/edge-tsad"
broker = { url = "mqtt://127.0.0.1:1", drain_s = 0 }
state = { interval_s = 0.5, budget_mb_per_day = 1e6 }
"""
STREAM = """[[streams]]
name = "%s"
bundle = "/run/edge/tiny.tsad"
health = { off = ["STUCK"] }
source = { type = "csv", path = "/run/edge/x.csv" }
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    stage = tmp_path_factory.mktemp("machine")
    home = stage / "home"
    home.mkdir()
    (home / "edge-tsad").write_text(EXECUTABLE)
    (home / "edge-tsad").chmod(0o755)
    (home / "shim.py").write_text(SHIM)
    (home / "gateway.toml").write_text(CONFIG + STREAM % "pump")
    values = [0.5] * 30 + [20.0] * 20_000
    (home / "x.csv").write_text("flow,pressure\n" + "".join(f"{v},0\n" for v in values))
    tiny_bundle.make(home / "tiny.tsad", timing=TIMING)
    with machine(stage, str(HOME / "edge-tsad"), SHORT) as started:
        yield started


PAYLOADS = f"""import sqlite3
db = sqlite3.connect("file:{DATA}/outbox.db?mode=ro", uri=True)
for row in db.execute("SELECT payload FROM alerts ORDER BY seq"):
    print(row[0].decode())
"""


def opened(gateway: Machine) -> list[str]:
    """The ids of the process alerts of the first stream that were ever opened."""
    lines = gateway.run(sys.executable, "-c", PAYLOADS).splitlines()
    found = [message for message in map(json.loads, lines) if "kind" not in message]
    return [m["id"] for m in found if m["stream"] == "pump" and m["type"] == "new"]


def test_a_life_under_systemd(gateway: Machine) -> None:
    gateway.wait("ActiveState", "active")  # it has said READY: the unit is Type=notify
    assert gateway.show("Type") == "notify"
    assert (
        gateway.run("stat", "-c", "%U", f"/proc/{gateway.show('MainPID')}").strip() == "edge-tsad"
    )
    wait_for(lambda: "pump FIRING" in gateway.show("StatusText"), 60)
    (alert,) = opened(gateway)
    wait_for(lambda: gateway.file(DATA / "state" / "pump.npz").exists(), 30)

    config = gateway.file(HOME / "gateway.toml")
    config.write_text(config.read_text() + STREAM % "fan")
    first = gateway.show("MainPID")
    assert gateway.run("systemctl", "reload", "edge-tsad") == ""
    wait_for(lambda: "fan" in gateway.show("StatusText"), 60)
    assert gateway.show("MainPID") == first and gateway.show("ActiveState") == "active"
    assert gateway.show("NRestarts") == "0"

    gateway.file(HOME / "hang").touch()
    gateway.wait("NRestarts", "1")  # nobody fed the watchdog, and systemd has begun it anew
    gateway.file(HOME / "hang").unlink()
    gateway.wait("ActiveState", "active")
    assert gateway.show("MainPID") not in (first, "0")
    wait_for(lambda: "pump: goes on from its saved state" in gateway.log)  # at its first sample
    wait_for(lambda: "pump FIRING" in gateway.show("StatusText"), 60)
    assert opened(gateway) == [alert]

    gateway.run("systemctl", "stop", "edge-tsad")
    assert (gateway.show("ActiveState"), gateway.show("Result")) == ("inactive", "success")
    assert "Traceback" not in gateway.log.partition("Fatal Python error")[0]
