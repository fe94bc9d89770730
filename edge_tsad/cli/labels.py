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
from edge_tsad.errors import ConfigError, DataError
from edge_tsad.runtime.labels import AlertLabel, labels_key, read_labels

__all__ = ["command"]


@click.command(
    name="labels",
    help="""Print the labels that the command `label` has given to alerts, as CSV or JSON.

CONFIG is the gateway's file. Each line is an alert with its span: `normal` ones were false, and
belong into the next training; `anomaly` ones do not, and --exclude prints them as `edge-tsad train
--exclude @FILE` takes them. The gateway may be running.

\b
Examples:
  edge-tsad labels gateway.toml > labels.csv
  edge-tsad labels gateway.toml --json
  edge-tsad labels gateway.toml --stream pump --exclude > repairs.txt
""",
)
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--stream", help="Only those of this stream.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one label a line.")
@click.option("--exclude", is_flag=True, help="Print the anomalies of one stream as FROM..TO.")
def command(*, config: Path, stream: str | None, as_json: bool, exclude: bool) -> int:
    """Print the labels of all streams, or of one."""
    if as_json and exclude:
        raise ConfigError("--json: cannot be together with --exclude; give one of them")
    settings = load_config(config)
    names = [each.name for each in settings.streams]
    if stream is not None and stream not in names:
        raise ConfigError(f"--stream: there is no {stream!r}; there are {', '.join(names)}")
    wanted = names if stream is None else [stream]
    if exclude and len(wanted) > 1:
        raise ConfigError(f"--exclude: is for one stream; give --stream, one of {', '.join(names)}")
    kept = stored(settings.folder / "outbox.db", wanted)
    if exclude:
        print_spans(wanted[0], kept[wanted[0]])
    elif as_json:
        print_json(kept)
    else:
        print_table(kept)
    return 0


def print_spans(stream: str, labels: list[AlertLabel]) -> None:
    """The anomalies, one a line, both ends included: times, or grid indices without a rate."""
    click.echo(f"# {stream}: alerts that were labelled as anomalies")
    for label in labels:
        if label.label == "anomaly":
            timed = label.begin is not None and label.end is not None
            ends = (label.begin, label.end) if timed else (label.from_index, label.to_index)
            click.echo(f"{ends[0]}..{ends[1]}")


def print_json(kept: dict[str, list[AlertLabel]]) -> None:
    """One object a line."""
    for stream, labels in kept.items():
        for label in labels:
            click.echo(json.dumps({"stream": stream, **dataclasses.asdict(label)}))


def print_table(kept: dict[str, list[AlertLabel]]) -> None:
    """CSV with a line of names."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["stream", *(field.name for field in dataclasses.fields(AlertLabel))])
    for stream, labels in kept.items():
        writer.writerows([stream, *dataclasses.astuple(label)] for label in labels)


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
