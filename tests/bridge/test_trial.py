"""A runtime and an agent as processes of two users without root, a broker, and what comes of it."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bridge.releases import bring, device, prepare, release, serves, tries
from conftest import Mosquitto

import firmware_bridge
from edge_tsad.runtime.trial_report import REPORT
from firmware_bridge.transports.directory import write_to_directory

AGENT, RUNTIME, GROUP = 64_101, 64_102, 64_103
CODE = Path(firmware_bridge.__file__).parents[1]
PACKAGES = os.pathsep.join([str(CODE), *(p for p in sys.path if p.endswith("-packages"))])
SETTINGS = 'reserve_mb = 0\nscan_s = 0.2\ntrial_s = {trial_s}\ninbox = ["{stick}"]\n'
START = 1_800_000_000


def by(user: int) -> list[str]:
    """The beginning of a command that runs as ``user`` and has no rights but that user's."""
    none = ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
    return ["setpriv", f"--reuid={user}", f"--regid={GROUP}", *none]


def usable(python: Path) -> bool:
    """Whether another user can run it with the packages of these tests."""
    # In a child of its own: setpriv itself may still start what the user may not.
    code = "import subprocess, sys, numpy, cryptography, onnxruntime\n"
    code += "subprocess.run([sys.executable, '-c', ''], check=True)"
    command = [*by(AGENT), str(python), "-c", code]
    environment = {**os.environ, "PYTHONPATH": PACKAGES}
    try:
        return (
            subprocess.run(command, env=environment, capture_output=True, check=False).returncode
            == 0
        )
    except OSError:
        return False


# Where the tests run from root's own folder, no other user can run their Python.
SYSTEM = Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
PYTHON = next((p for p in (Path(sys.executable), SYSTEM) if usable(p)), None)


def wait_for(condition: Callable[[], object], limit_s: float = 30) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


class Sensor:
    """A serial line: 40 points a second of 1 s each, normal but for an anomaly every 200 points.

    Whoever connects again gets what follows on the last line.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._talk, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _talk(self) -> None:
        lines = (
            f"{START + i},{9.0 if i % 200 in (100, 101, 102) else 0.5},0\n".encode()
            for i in itertools.count()
        )
        while True:
            try:
                line, _ = self._listener.accept()
                with line:
                    while True:
                        line.sendall(next(lines))
                        time.sleep(0.025)
            except ConnectionError:
                continue
            except OSError:
                return


class Machine:
    """A gateway: ``root`` belongs to the agent and ``own`` to the runtime, two users."""

    def __init__(self, folder: Path, broker: Mosquitto, trial_s: float = 10) -> None:
        self.folder, self.broker = folder, broker
        self.stick, self.own = folder / "stick", folder / "own"
        self.root = prepare(folder / "root", SETTINGS.format(trial_s=trial_s, stick=self.stick))
        bring(device(self.root), release(1))
        for made in (self.stick, self.own):
            made.mkdir()
        self.sensor = Sensor()
        (folder / "gateway.toml").write_text(
            f'site = "plant"\ndevice = "gw"\ndata_dir = "{self.own}"\nbudget = "1/10000pt"\n'
            f'[broker]\nurl = "{broker.url}"\n[[streams]]\nname = "pump"\n'
            f'bundle = "{self.root}/active.tsad"\n'
            f'source = {{ type = "serial", port = "socket://127.0.0.1:{self.sensor.port}" }}\n'
        )
        for top, user in ((self.root, AGENT), (self.own, RUNTIME)):
            for path in (top, *top.rglob("*")):
                os.chown(path, user, GROUP, follow_symlinks=False)
                if path.is_dir():
                    path.chmod(0o2775 if path.name == "reports" else 0o2755)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, user: int, *command: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": PACKAGES, "HOME": str(self.own)}
        with (self.folder / f"log-{user}").open("ab") as log:
            process = subprocess.Popen(
                [*by(user), str(PYTHON), "-m", *command],
                cwd=self.own, env=environment, stderr=log, stdout=log,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def agent(self) -> subprocess.Popen[bytes]:
        return self.start(AGENT, "firmware_bridge.agent", "--root", str(self.root), "watch")

    def runtime(self) -> subprocess.Popen[bytes]:
        process = self.start(RUNTIME, "edge_tsad", "run", "-v", str(self.folder / "gateway.toml"))
        wait_for(lambda: self.said("state/pump").get("process") == "OK")
        return process

    def said(self, topic: str) -> dict[str, Any]:
        """What is retained on a topic."""
        done = subprocess.run(
            ["mosquitto_sub", "-p", str(self.broker.port), "-t", f"edge-tsad/plant/gw/{topic}",
             "-C", "1", "-W", "2"], capture_output=True, check=False,
        )  # fmt: skip
        return json.loads(done.stdout or b"{}")

    def insert(self, number: int, **options: Any) -> str:
        """A stick with a release; returns its digest."""
        made = release(number, **options)
        list(write_to_directory(self.stick, made.bundle.manifest.filename, made.data))
        return made.digest

    def log(self, user: int) -> str:
        path = self.folder / f"log-{user}"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def machine(mosquitto: Mosquitto) -> Iterator[Machine]:
    if os.geteuid() or PYTHON is None:
        pytest.skip("TWO USERS ARE NOT TESTED: it takes root, setpriv and a Python for all users")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        made = Machine(Path(name), mosquitto)
        yield made
        for process in made.processes:
            process.kill()
            process.wait()
        made.sensor.close()
        print(made.log(AGENT), made.log(RUNTIME), sep="\n")  # noqa: T201 - shown where it failed


def test_a_good_candidate_is_scored_beside_and_takes_over_without_warming_up(
    machine: Machine,
) -> None:
    runtime = machine.runtime()
    machine.agent()
    digest = machine.insert(2)
    wait_for(lambda: tries(machine.root) == digest)
    assert serves(machine.root) == release(1).digest
    wait_for((machine.root / REPORT).exists)
    assert machine.said("state/pump")["digest"] == release(1).digest
    wait_for(lambda: serves(machine.root) == digest)
    wait_for(lambda: machine.said("state/pump").get("digest") == digest)
    assert machine.said("state/pump")["process"] != "WARMING_UP"
    assert machine.said("state/pump")["warmup_points"] == 0
    assert runtime.poll() is None, "it is the same process"
    wait_for(lambda: machine.said("update/pump").get("event") == "committed")
    told = machine.said("update/pump")
    assert (told["bundle"], told["active"]) == ("tiny-1.2", "tiny-1.2")
    assert "points" in told["reason"]
    assert "alarms (active" in told["reason"]
    assert "goes on from its saved state" in machine.log(RUNTIME)
    assert not (machine.root / REPORT).exists()


def test_a_candidate_that_always_alarms_never_serves_and_the_reason_goes_out(
    machine: Machine,
) -> None:
    machine.runtime()
    machine.agent()
    machine.insert(2, threshold_shift=-4.9)
    wait_for(lambda: machine.said("update/pump").get("event") == "rolled back")
    told = machine.said("update/pump")
    assert "above its threshold" in told["reason"] or "alarms in" in told["reason"]
    assert (told["bundle"], told["active"]) == ("tiny-1.2", "tiny-1.1")
    assert (serves(machine.root), tries(machine.root)) == (release(1).digest, "")
    assert machine.said("state/pump")["digest"] == release(1).digest


def test_a_runtime_that_dies_beside_a_candidate_ends_its_trial(machine: Machine) -> None:
    runtime = machine.runtime()
    machine.agent()
    digest = machine.insert(2)
    wait_for(lambda: tries(machine.root) == digest and (machine.root / REPORT).exists())
    runtime.kill()
    runtime.wait()
    machine.runtime()
    wait_for(lambda: machine.said("update/pump").get("event") == "rolled back")
    reason = machine.said("update/pump")["reason"]
    assert "crashed or was killed" in reason
    assert serves(machine.root) == release(1).digest


def test_the_runtime_cannot_change_what_the_agent_decided(machine: Machine) -> None:
    code = f"""
import os, sys
from pathlib import Path
root = Path({str(machine.root)!r})
for act in (lambda: (root / "active.tsad").unlink(), lambda: (root / "state.json").write_text(""),
            lambda: (root / "trusted.json").write_text(""), lambda: (root / "x").touch(),
            lambda: next((root / "store").iterdir()).unlink()):
    try:
        act()
    except PermissionError:
        continue
    sys.exit(1)
(root / "reports" / "x").touch()
"""
    script = machine.folder / "script.py"
    script.write_text(code)
    assert subprocess.run([*by(RUNTIME), str(PYTHON), script], check=False).returncode == 0


def test_an_active_bundle_that_no_trusted_key_signed_is_not_run(machine: Machine) -> None:
    store = machine.root / "store"
    unsigned = release(2, key=None)
    (store / f"{unsigned.digest}.tsad").write_bytes(unsigned.data)
    (machine.root / "active.tsad").unlink()
    (machine.root / "active.tsad").symlink_to(f"store/{unsigned.digest}.tsad")
    runtime = machine.start(RUNTIME, "edge_tsad", "run", str(machine.folder / "gateway.toml"))
    assert runtime.wait(60) == 2
    assert "is not signed" in machine.log(RUNTIME)
