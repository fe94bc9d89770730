"""How long a 200 kB bundle takes from `edge-tsad flash` to serving, over a real sshd on loopback.

    python benchmarks/flash.py [--runs 7] [--out benchmarks/flash.md]

Each run starts the command line anew, flashes a bundle that is not there yet and confirms it, as
`edge-tsad flash BUNDLE gateway --confirm` does. The parts are told by the gateway's own history.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bridge.conftest import Sshd  # noqa: E402
from bridge.releases import release  # noqa: E402

from firmware_bridge.folder import Folder  # noqa: E402

SIZE = 200_000
BOUND_S = 5.0
PARTS = {
    "verified": "verify signature and content",
    "staged": "store",
    "self-tested": "self-test, a process of its own",
    "trial": "begin the trial",
    "committed": "commit",
}


def edge_tsad(sshd: Sshd, *words: object) -> str:
    """One command of a user."""
    command = [sys.executable, "-m", "edge_tsad", *map(str, words), "--ssh-config", sshd.config]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout


def parts(root: Path, begun_ns: int, ended_ns: int) -> Iterator[tuple[str, float]]:
    """The parts of the last update in seconds."""
    entries = Folder(root).load().history
    last = max(i for i, entry in enumerate(entries) if entry.event == "received")
    before = begun_ns
    for entry in entries[last:]:
        name = PARTS.get(entry.event, "start, connect, upload")
        yield name, (entry.wall_ns - before) / 1e9
        before = entry.wall_ns
    yield "switch, answer, end", (ended_ns - before) / 1e9


def measure(sshd: Sshd, folder: Path, number: int) -> dict[str, float]:
    """One run."""
    path = release(number, padding=SIZE).write(folder / f"tiny-1.{number}.tsad")
    begun_ns, begun_s = time.time_ns(), time.monotonic()
    edge_tsad(sshd, "flash", path, "gw-1", "--confirm")
    whole_s = time.monotonic() - begun_s
    found = dict(parts(sshd.roots["gw-1"], begun_ns, time.time_ns()))
    status = json.loads(edge_tsad(sshd, "status", "gw-1", "--json"))
    assert status["active"]["version"] == f"1.{number}"
    return {**found, "whole": whole_s}


def report(runs: list[dict[str, float]]) -> str:
    """The figures as Markdown."""
    names = [*dict.fromkeys(name for run in runs for name in run if name != "whole"), "whole"]
    rows = [
        f"| {name} | {statistics.median(values):.2f} | {max(values):.2f} |"
        for name in names
        if (values := [run[name] for run in runs if name in run])
    ]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    size = len(release(1, padding=SIZE).data)
    return "\n".join([
        "# Flashing a bundle over SSH on loopback", "",
        f"`python benchmarks/flash.py`: {len(runs)} runs of `edge-tsad flash BUNDLE gw --confirm`, "
        f"{size:,} bytes, with a real sshd, its own root folder and a trial that is confirmed at "
        "once.", "",
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; load "
        f"average {load} (other work ran beside it).", "",
        "| part | median s | longest s |", "|---|---:|---:|", *rows, "",
        f"Bound for the whole: {BOUND_S:.0f} s.", "",
    ])  # fmt: skip


def main() -> int:
    """Measure and write; 1 if the median is not within the bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "flash.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sshd = Sshd(folder)
        sshd.start()
        try:
            runs = [measure(sshd, folder, number) for number in range(1, given.runs + 2)][1:]
        finally:
            sshd.stop()
    given.out.write_text(report(runs))
    print(report(runs))
    return int(statistics.median(run["whole"] for run in runs) > BOUND_S)


if __name__ == "__main__":
    sys.exit(main())
