"""A gateway's life in a process of its own, which can be made to die at any of its durable steps.

This file runs as a server: it imports what a gateway needs once and then forks a child for each
trial, so that hundreds of real processes can be killed in a minute. What the child says (to its
journal, and to the one who plays the broker) is written at once: it survives the kill.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import signal
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from faults.mutants import mutate, set_here
from oracles.taking_sink import TakingSink

from edge_tsad.config import load_config
from edge_tsad.runtime import delivery, feed, gateway, history
from edge_tsad.runtime.backends import onnxruntime  # noqa: F401 - imported before the forks
from edge_tsad.runtime.history import History
from edge_tsad.runtime.outbox import Outbox
from edge_tsad.runtime.sources import csv
from edge_tsad.runtime.state import load
from edge_tsad.runtime.worker import StreamWorker
from edge_tsad.types import Now

START = 1_800_000_000
CYCLE = [0.5] * 10 + [20.0] * 5
VALUES = [0.5] * 8 + CYCLE * 12
QUIET = [0.5] * 30  # long enough to warm up and to resolve what is open
HISTORY_BYTES = 3000
SQL = re.compile(r"(BEGIN|COMMIT|PRAGMA \w+|(?:INSERT INTO|REPLACE INTO|UPDATE|DELETE FROM) \w+)")


class HandClock:
    """Every look takes 50 ms; the first one comes long after the boot."""

    def __init__(self) -> None:
        self.monotonic_s = 1000.0

    def now(self) -> Now:
        self.monotonic_s += 0.05
        return Now(self.monotonic_s, START * 10**9, "boot")


class Journal:
    """Lines that are with the kernel when the call returns."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, **entry: Any) -> None:
        os.write(self._file, json.dumps(entry).encode() + b"\n")


class Broker(TakingSink):
    """Takes every alert and notes it."""

    def __init__(self, path: Path, points: Points) -> None:
        super().__init__()
        self._journal, self._points = Journal(path), points

    def took(self, topic: str, payload: bytes) -> None:
        self._points("before publish")
        self._journal.write(topic=topic, **json.loads(payload))
        self._points("after publish")


class Points:
    """Counts the named points that are passed; the process ends at its ``kill`` point."""

    def __init__(self, kill: list[Any] | None) -> None:
        self.kill = tuple(kill) if kill else None
        self.passed: Counter[str] = Counter()

    def __call__(self, name: str) -> None:
        self.passed[name] += 1
        if self.kill == (name, self.passed[name]):
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            self(f"before {name}")
            result = call(*arguments, **options)
            self(f"after {name}")
            return result

        return wrapped


def kind_of(handle: int) -> str:
    """What an open file of the data folder is."""
    path = Path(f"/proc/self/fd/{handle}").readlink()
    if path.is_dir():
        return f"folder {path.name}"
    return "snapshot" if ".npz" in path.name else "segment"


def watch(points: Points, journal: Journal) -> None:
    """Announce every durable step of the storage, for this process."""
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        db = connect(*arguments, **options)
        db.set_trace_callback(
            lambda sql: points(f"sql {found[1]}") if (found := SQL.match(sql)) else None
        )
        return db

    fsync = os.fsync

    def synced(handle: int) -> None:
        points.around(f"sync {kind_of(handle)}", fsync)(handle)

    class Halting(FileIO):
        """Writes half of what it is given, as a file may."""

        def write(self, data: Any) -> int:
            half = super().write(data[: max(1, len(data) // 2)])
            points("half a block")
            return half

    set_here(sqlite3, "connect", traced)
    set_here(os, "fsync", synced)
    set_here(history, "FileIO", Halting)
    set_here(Path, "replace", points.around("rename snapshot", Path.replace))
    set_here(Path, "unlink", points.around("delete segment", Path.unlink))
    set_here(tempfile, "mkstemp", points.around("begin snapshot", tempfile.mkstemp))
    for method in ("commit", "settle", "prune"):
        set_here(Outbox, method, points.around(method, getattr(Outbox, method)))
    keep_journal(journal)


def keep_journal(journal: Journal) -> None:
    """Note what was promised, as soon as it was."""
    commit, take = Outbox.commit, StreamWorker.take
    snapshot, sync = StreamWorker.snapshot, History.sync

    def committed(box: Outbox, stream: str, payloads: Any, state: bytes, now: Now) -> None:
        commit(box, stream, payloads, state, now)
        for payload in payloads:
            alert = json.loads(payload)
            journal.write(committed=alert["seq"], id=alert["id"], type=alert["type"])

    def taken(worker: StreamWorker, batch: Any, now: Now) -> None:
        journal.write(took=int(batch.times_ns[-1]) // 10**9 - START)
        take(worker, batch, now)

    def snapped(worker: StreamWorker) -> int:
        written = snapshot(worker)
        if written:
            journal.write(snapshot=worker.pipeline.resampler.latest_ns)
        return written

    def recorded(kept: History, now: Now) -> None:
        rows = [int(index) for cells in kept._waiting for index in cells.index]
        sync(kept, now)
        journal.write(recorded=rows)

    set_here(Outbox, "commit", committed)
    set_here(StreamWorker, "take", taken)
    set_here(StreamWorker, "snapshot", snapped)
    set_here(History, "sync", recorded)


def small_steps() -> None:
    """Make a short life pass many durable steps."""
    set_here(csv, "ROWS", 3)
    set_here(feed, "PRESSING", 3)
    set_here(feed, "MOST_WAITING", 3)
    set_here(delivery, "PRUNE_EVERY_S", 1.0)
    set_here(history, "LEAST_BYTES", 1)
    set_here(history, "SEGMENTS", 8)
    set_here(
        gateway,
        "History",
        lambda folder, layout, _bytes, sync_s: History(folder, layout, HISTORY_BYTES, sync_s),
    )


def play(folder: Path, kill: list[Any] | None, mutant: str) -> None:
    """Run the gateway in ``folder`` on the samples that it has not taken yet."""
    logging.disable(logging.WARNING)  # what is found damaged is said, and expected here
    small_steps()
    if mutant:
        mutate(mutant)
    points = Points(kill)
    journal = Journal(folder / "journal")
    found = load(folder / "data" / "state" / "pump.npz")
    journal.write(
        begun=True,
        loaded=found and found.facts["latest_ns"],
        recording=recording_in(folder / "data" / "history" / "pump"),
    )
    watch(points, journal)
    entries = read_journal(folder / "journal")
    first = 1 + max((entry["took"] for entry in entries if "took" in entry), default=-1)
    left = [*VALUES[first:], *QUIET]
    rows = [f"{START + i},{v},{i * 1e-3}" for i, v in enumerate(left, first)]
    (folder / "x.csv").write_text("\n".join(["time,flow,pressure", *rows, ""]))
    config = load_config(folder / "gateway.toml")
    made = gateway.Gateway(config, HandClock(), Broker(folder / "broker", points))  # type: ignore[arg-type]
    made.run()
    journal.write(
        ended=True,
        errors=made.errors,
        set_aside=made.outbox.set_aside is not None,
        points=points.passed,
        syncs={purpose: writes.syncs for purpose, writes in made.writes().items()},
    )


def recording_in(folder: Path) -> list[list[float]]:
    """Index (from the start of the story) and second channel of all rows that are there."""
    from edge_tsad.errors import DataError
    from edge_tsad.runtime.segments import read_recording

    with contextlib.suppress(DataError):
        kept = read_recording(folder)
        return [[int(i), float(v)] for i, v in zip(kept.index, kept.values[:, 1], strict=True)]
    return []


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Its whole lines."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def prepare(folder: Path, bundle: Path) -> Path:
    """A folder in which the story can be played."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gateway.toml").write_text(f"""
site = "plant"
device = "gw"
data_dir = "data"
broker = {{ drain_s = 5 }}
state = {{ interval_s = 0.01, budget_mb_per_day = 1e9 }}
history = {{ sync_s = 0.1 }}
outbox = {{ retention_days = 1e-5 }}
[[streams]]
name = "pump"
bundle = "{bundle}"
source = {{ type = "csv", path = "x.csv", speed = "max" }}
record = true
""")
    return folder


def serve() -> None:
    """Read trials as lines of JSON, fork a child for each, answer with its exit status."""
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if not child:
            try:
                play(Path(asked["folder"]), asked["kill"], asked["mutant"])
                status = 0
            except BaseException:
                import traceback

                traceback.print_exc()
                status = 1
            sys.stderr.flush()
            os._exit(status)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    assert np.__version__  # imported before the forks
    if len(sys.argv) > 1:
        play(Path(sys.argv[1]), None, sys.argv[2])
    else:
        serve()
