"""Bringing home what gateways have recorded: segments are gone on with, alerts become windows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_tsad.errors import DataError, TransportError
from edge_tsad.files import reason
from edge_tsad.runtime.recording import export
from edge_tsad.runtime.segments import read_recording
from firmware_bridge.flash import Connection
from firmware_bridge.harvest import FILE
from firmware_bridge.protocol import unpack_bytes

__all__ = ["Fetched", "cut_windows", "fetch"]

ID = re.compile(r"[0-9a-f]{1,32}")


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was brought: bytes of history, and messages of alerts that were not here yet."""

    new_bytes: int
    alerts: int
    files: int


def fetch(connection: Connection, folder: Path) -> Fetched:
    """Bring history and alerts of a gateway into ``folder``; only what is not there already.

    Raises:
        EdgeTsadError: the gateway cannot be reached or read, or ``folder`` cannot be written.
    """
    try:
        files = connection.insist("files")["files"]
        new = sum(bring(connection, str(f["path"]), int(f["size"]), folder) for f in files)
        alerts = list(new_alerts(connection, folder / "alerts.jsonl"))
        with (folder / "alerts.jsonl").open("a", encoding="utf-8") as out:
            out.writelines(json.dumps(message, sort_keys=True) + "\n" for message in alerts)
    except OSError as e:
        raise DataError(f"{folder}: could not be written to: {reason(e)}") from e
    except (KeyError, TypeError, ValueError) as e:
        raise TransportError(f"{connection.transport.name}: gave an answer that is none") from e
    return Fetched(new, len(alerts), len(files))


def bring(connection: Connection, path: str, size: int, folder: Path) -> int:
    """Go on with one segment: they only grow; returns how many bytes came."""
    if not FILE.fullmatch(path):
        raise TransportError(f"{connection.transport.name}: names a file {path!r}")
    target = folder / "history" / path
    target.parent.mkdir(parents=True, exist_ok=True)
    begun = target.stat().st_size if target.exists() else 0
    here = begun
    with target.open("ab") as out:
        while here < size:
            reply = connection.insist("read", path=path, offset=here)
            data = unpack_bytes(str(reply["data"]), "data")
            if not data:
                break
            out.write(data)
            here += len(data)
    return here - begun


def new_alerts(connection: Connection, known: Path) -> Iterator[dict[str, Any]]:
    """The messages after the last one that is here."""
    known.parent.mkdir(parents=True, exist_ok=True)
    lines = known.read_text(encoding="utf-8").splitlines() if known.exists() else []
    after = max((int(json.loads(line)["seq"]) for line in lines), default=0)
    while messages := connection.insist("alerts", after=after)["alerts"]:
        for entry in messages:
            after = int(entry["seq"])
            yield dict(entry["message"])


def cut_windows(folder: Path, around_ns: int) -> list[Path]:
    """Write a CSV file for each alert that was recorded, from ``around_ns`` before to after it.

    Raises:
        DataError: the recording cannot be read, or a file cannot be written.
    """
    spans: dict[tuple[str, str], tuple[int, int]] = {}
    text = (folder / "alerts.jsonl").read_text(encoding="utf-8")
    for message in map(json.loads, text.splitlines()):
        stream, name = str(message.get("stream")), str(message.get("id"))
        if not ID.fullmatch(name) or "onset_index" not in message:
            continue
        first, last = int(message["onset_index"]), int(message["index"])
        low, high = spans.get((stream, name), (first, last))
        spans[stream, name] = (min(low, first), max(high, last))
    made = []
    for (stream, name), (low, high) in spans.items():
        source = folder / "history" / stream
        if FILE.fullmatch(f"{stream}/{name}") and source.is_dir():
            made += window(
                source, folder / "windows" / f"{stream}-{name}.csv", (low, high, around_ns)
            )
    return made


def window(source: Path, target: Path, span: tuple[int, int, int]) -> list[Path]:
    """One window; nothing where no cell of it was recorded."""
    low, high, around_ns = span
    whole = read_recording(source)
    around = around_ns // whole.layout.step_ns
    inside = np.flatnonzero((whole.index >= low - around) & (whole.index <= high + around))
    if not len(inside):
        return []
    target.parent.mkdir(parents=True, exist_ok=True)
    export(replace(whole, index=whole.index[inside], values=whole.values[inside]), target)
    return [target]
