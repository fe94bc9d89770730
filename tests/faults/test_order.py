"""(b) No byte of an alert leaves before the storage has said that the alert is safe."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Mosquitto
from faults.conftest import environment
from faults.disk import calls, number
from oracles import tiny_bundle

STRACE = shutil.which("strace")
pytestmark = pytest.mark.skipif(
    STRACE is None, reason="STRACE IS MISSING: the order is not tested (apt install strace)"
)
CALLS = "openat,close,write,pwrite64,fsync,fdatasync,send,sendto,sendmsg"
SEQ = re.compile(rb'"seq":(\d+),"epoch"')
# As many alerts as are told before a stream counts as flapping.
VALUES = ([0.5] * 10 + [20.0] * 5) * 4 + [0.5] * 20
CARELESS = """
import sys
from faults.story import mutate
from edge_tsad.cli import main
mutate("synchronous=OFF")
main()
"""


def traced(folder: Path, broker: Mosquitto, program: list[str]) -> Path:
    """Run the gateway to its end with a real broker; the log of its calls."""
    assert STRACE
    tiny_bundle.make(folder / "tiny.tsad")
    rows = [f"{1_800_000_000 + i},{value},0" for i, value in enumerate(VALUES)]
    (folder / "x.csv").write_text("\n".join(["time,flow,pressure", *rows, ""]))
    log = folder / "strace.log"
    subprocess.run(
        [STRACE, "-f", "-xx", "-s", "10000000", "-e", f"trace={CALLS}", "-o", str(log), *program,
         "run", "--bundle", "tiny.tsad", "--source", "csv:x.csv", "--speed", "200",
         "--broker", broker.url, "--site", "plant", "--device", "gw", "--data-dir", "data"],
        check=True, cwd=folder, env=environment(), timeout=120,
    )  # fmt: skip
    return log


def order(log: Path) -> tuple[set[int], set[int]]:
    """Numbers of the alerts that were sent, and of those that were sent before they were synced.

    A sync stands in the log where it returned, a send where it began.
    """
    wal: set[int] = set()
    written: set[int] = set()
    synced: set[int] = set()
    sent: set[int] = set()
    early: set[int] = set()
    for call in calls(log):
        found = {int(seq) for data in call.strings for seq in SEQ.findall(data)}
        if call.name == "openat":
            wal.discard(call.result)
            if call.strings[0].endswith(b"outbox.db-wal"):
                wal.add(call.result)
        elif call.name == "pwrite64" and number(call) in wal:
            written |= found
        elif call.name in ("fsync", "fdatasync") and number(call) in wal:
            synced |= written
        elif call.name.startswith("send") and b"/alert/" in b"".join(call.strings):
            sent |= found
            early |= found - synced
    return sent, early


def test_the_sync_returns_before_the_publish_leaves(mosquitto: Mosquitto, tmp_path: Path) -> None:
    log = traced(tmp_path, mosquitto, [sys.executable, "-m", "edge_tsad"])
    sent, early = order(log)
    assert sent == set(range(1, 9)) and not early
    print(f"{len(sent)} alerts: the sync of each had returned before its PUBLISH left")


def test_an_outbox_that_does_not_sync_is_noticed(mosquitto: Mosquitto, tmp_path: Path) -> None:
    (tmp_path / "careless.py").write_text(CARELESS)
    log = traced(tmp_path, mosquitto, [sys.executable, str(tmp_path / "careless.py")])
    sent, early = order(log)
    assert early == sent != set()
    print(f"mutant 'synchronous=OFF': noticed, {len(early)} alerts left before their sync")
