"""``edge-tsad labels``: what people said of alerts, for the next training."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import sqlite3
import sys
from pathlib import Path

import click

from edge_tsad.config import load_config
from edge_tsad.errors import DataError
from edge_tsad.runtime.labels import AlertLabel, labels_key, read_labels

__all__ = ["command"]


@click.command(
    name="labels",
    help="""Print the labels that the command `label` has given to alerts, as CSV or JSON.

CONFIG is the gateway's file. Each line is an alert with its span: `normal` ones were false, and
belong into the next training; `anomaly` ones do not. The gateway may be running.

\b
Examples:
  edge-tsad labels gateway.toml > labels.csv
  edge-tsad labels gateway.toml --json
""",
)
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one label a line.")
def command(*, config: Path, as_json: bool) -> int:
    """Print the labels of all streams."""
    settings = load_config(config)
    path = settings.folder / "outbox.db"
    kept = stored(path, [stream.name for stream in settings.streams])
    names = [field.name for field in dataclasses.fields(AlertLabel)]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if not as_json:
        writer.writerow(["stream", *names])
    for stream, labels in kept.items():
        for label in labels:
            if as_json:
                click.echo(json.dumps({"stream": stream, **dataclasses.asdict(label)}))
            else:
                writer.writerow([stream, *dataclasses.astuple(label)])
    return 0


def stored(path: Path, streams: list[str]) -> dict[str, list[AlertLabel]]:
    """The labels of each stream in the outbox ``path``.

    Raises:
        DataError: there is no outbox, or it cannot be read.
    """
    if not path.is_file():
        raise DataError(f"{path}: does not exist; the gateway has not run with this configuration")
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5)) as db:
            rows = dict(db.execute("SELECT stream, state FROM streams"))
    except sqlite3.Error as e:
        raise DataError(f"{path}: cannot be read: {e}") from e
    return {name: read_labels(rows.get(labels_key(name)), name) for name in streams}
