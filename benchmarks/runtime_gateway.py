"""``edge-tsad run`` as a process of its own beside a real mosquitto, watched from outside."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as paho
from runtime_parts import RATE_HZ, STREAMS, series

from edge_tsad.bundle import open_bundle

__all__ = ["Cost", "broker", "feed", "watch"]

READY_S = 300.0
TICKS = os.sysconf("SC_CLK_TCK")
SOURCES = {
    "csv": 'source = {{ type = "csv", path = "{folder}/x.csv", speed = {speed} }}',
    "mqtt": 'source = {{ type = "mqtt", map = {{ "sensor/{i}" = "{channel}" }}, '
    'broker.url = "mqtt://127.0.0.1:{port}" }}',
}


@dataclass(frozen=True)
class Cost:
    """Processor time in % of a core, wake-ups per second, and the highest memory in MB."""

    cpu: float
    wakes: float
    peak_mb: float


@contextlib.contextmanager
def broker() -> Iterator[int]:
    """The port of a mosquitto."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    path = "/usr/sbin:" + os.environ["PATH"]
    process = subprocess.Popen(
        [shutil.which("mosquitto", path=path) or "mosquitto", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        listening(port)
        yield port
    finally:
        process.terminate()
        process.wait()


def listening(port: int) -> None:
    """Wait until something takes connections at ``port`` of this machine.

    Raises:
        TimeoutError: nothing does within ``READY_S``.
    """
    end_s = time.monotonic() + READY_S
    while time.monotonic() < end_s:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.05)
    raise TimeoutError(f"no broker listens at port {port}")


def feed(port: int, stop: threading.Event) -> None:
    """Publish a value on each sensor's topic ten times a second, each at a time of its own."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    values = series(10_000)
    begun_s, count = time.monotonic(), 0
    while not stop.wait(max(0.0, begun_s + count / (STREAMS * RATE_HZ) - time.monotonic())):
        value = values[count // STREAMS % len(values)]
        client.publish(f"sensor/{count % STREAMS}", f"{value:.6g}")
        count += 1
    client.disconnect()


def watch(
    folder: Path, port: int, bundles: list[Path], span_s: tuple[float, float], *,
    kind: str = "csv", tree: Path | None = None,
) -> Cost:  # fmt: skip
    """Eight streams at 10 Hz, their cost between two times (s) after they are ready.

    ``tree`` is where the code is that runs; None for this one's.
    """
    folder.mkdir()
    channel = open_bundle(bundles[0]).manifest.channels[0].name
    rows = "\n".join(f"{value:.6g}" for value in series(int(span_s[1] + 60) * RATE_HZ))
    (folder / "x.csv").write_text(f"{channel}\n{rows}\n")
    text = f'site = "b"\ndevice = "{folder.name}"\ndata_dir = "data"\n'
    text += f'broker.url = "mqtt://127.0.0.1:{port}"\n'
    for i in range(STREAMS):
        source = SOURCES[kind].format(folder=folder, speed=RATE_HZ, i=i, channel=channel, port=port)
        text += f'[[streams]]\nname = "s{i}"\nbundle = "{bundles[i % len(bundles)]}"\n'
        text += f'backend = "litert"\n{source}\n'
    (folder / "gateway.toml").write_text(text)
    environment = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}
    if tree is not None:
        environment["PYTHONPATH"] = str(tree)
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(environment["NOTIFY_SOCKET"])
    manager.settimeout(READY_S)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge_tsad", "run", "gateway.toml"],
            cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        while b"READY=1" not in manager.recv(4096):
            pass
        time.sleep(span_s[0])
        before = figures(process.pid)
        time.sleep(span_s[1] - span_s[0])
        after = figures(process.pid)
    finally:
        process.terminate()
        process.wait()
        manager.close()
    seconds = after[0] - before[0]
    return Cost(100 * (after[1] - before[1]) / seconds, (after[2] - before[2]) / seconds, after[3])


def figures(pid: int) -> tuple[float, float, int, float]:
    """Time now, processor time (s), wake-ups of all threads, and highest memory (MB)."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    peak = field_of(Path(f"/proc/{pid}/status"), "VmHWM") * 1024 / 1e6
    tasks = Path(f"/proc/{pid}/task").iterdir()
    wakes = sum(field_of(task / "status", "voluntary_ctxt_switches") for task in tasks)
    return time.monotonic(), (int(stat[11]) + int(stat[12])) / TICKS, wakes, peak


def field_of(path: Path, key: str) -> int:
    """A number of a status file of the kernel."""
    lines = path.read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key + ":")).split()[1])
