"""``edge-tsad replay``: the score of an alert, computed once more from the points it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edge_tsad.bundle import Bundle, Manifest, open_bundle
from edge_tsad.cli.tables import table
from edge_tsad.errors import DataError
from edge_tsad.runtime.choosing import Choice, choose, reopen
from edge_tsad.runtime.evidence import find, rescored
from edge_tsad.runtime.payload import rounded
from edge_tsad.runtime.state import Saved, load

__all__ = ["command"]


@click.command(
    name="replay",
    help="""Compute the score of an alert again, from the raw points that the gateway kept of it.

ALERT is an alert's id, to be found in a gateway's --data folder, or a file that was copied from
there (state/STREAM.alerts/ID.npz). It is judged by BUNDLE, which need not be the one that raised
it: so a new bundle can be tried on an old alert.

\b
Examples:
  edge-tsad replay 5f0c61d2a9b34e77 --data /var/lib/edge-tsad --bundle pump-1.0.0.tsad
  edge-tsad replay 5f0c61d2a9b34e77.npz --bundle pump-1.1.0.tsad --json
""",
)
@click.argument("alert")
@click.option("--data", type=click.Path(path_type=Path), help="Data folder of a gateway.")
@click.option("--bundle", required=True, type=click.Path(path_type=Path), help="What judges it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(alert: str, data: Path | None, bundle: Path, as_json: bool) -> None:
    """Print recorded and computed score."""
    saved = stored(alert, data)
    opened = open_bundle(bundle)
    manifest = opened.manifest
    channels = len(manifest.channels)
    if saved.arrays["values"].shape[1:] != (channels,):
        raise DataError(f"{bundle}: has {channels} channel(s), other than the alert's stream")
    facts = saved.facts
    choice = choice_of(opened, facts)
    scores, at = rescored(saved, manifest.timing, channels, choice.backend)
    answer: dict[str, Any] = {
        "alert_id": facts["alert_id"],
        "stream": facts["stream"],
        "same_bundle": facts["digest"] == opened.digest,
        "model": choice.chosen.label,
        "peak_index": facts["peak_index"],
        "recorded": rounded(facts["peak"]),
        "replayed": rounded(float(scores.score[at])),
        "threshold": rounded(facts["threshold"]),
        "channels": parts(manifest, scores, at),
    }
    click.echo(json.dumps(answer, indent=2) if as_json else text(answer, facts, bundle))


def stored(alert: str, data: Path | None) -> Saved:
    """What was kept of the alert.

    Raises:
        DataError: nothing was, or it cannot be read.
    """
    if data is not None:
        return find(data, alert)
    path = Path(alert)
    if not path.exists():
        raise DataError(f"{alert}: is no file; give --data with the gateway's data folder")
    found = load(path)
    if found is None or "peak_index" not in found.facts or "values" not in found.arrays:
        raise DataError(f"{alert}: holds no points of an alert")
    return found


def choice_of(bundle: Bundle, facts: dict[str, Any]) -> Choice:
    """The model file and runtime that raised the alert, where they are here; else the best."""
    same = reopen(bundle, str(facts.get("model")), str(facts.get("runtime")))
    return same or choose(bundle)


def parts(manifest: Manifest, scores: Any, at: int) -> list[dict[str, Any]]:
    """What was seen and expected of each channel at the peak, the largest part first."""
    order = (-scores.channel_score[at]).argsort(kind="stable")
    return [
        {
            "name": manifest.channels[i].name,
            "score": rounded(float(scores.channel_score[at, i])),
            "seen": rounded(float(scores.values[at, i])) if scores.observed[at, i] else None,
            "expected": None if scores.expected is None else rounded(float(scores.expected[at, i])),
        }
        for i in order
    ]


def text(answer: dict[str, Any], facts: dict[str, Any], bundle: Path) -> str:
    """For a person."""
    same = "the bundle that raised it" if answer["same_bundle"] else f"not {facts['bundle']}"
    lines = [
        f"alert {answer['alert_id']} of {answer['stream']}, peak at point {answer['peak_index']}",
        f"  recorded   {answer['recorded']}  (threshold {answer['threshold']})",
        f"  replayed   {answer['replayed']}  by {answer['model']} of {bundle.name}, {same}",
        "",
    ]
    rows = [
        [each["name"], *(show(each[key]) for key in ("score", "seen", "expected"))]
        for each in answer["channels"]
    ]
    return "\n".join([*lines, *table(["channel", "part", "seen", "expected"], rows)])


def show(number: float | None) -> str:
    """A number, or a dash."""
    return "-" if number is None else f"{number:.6g}"
