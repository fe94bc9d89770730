"""``edge-tsad demo``: the whole job once, on real data, with a table at its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_tsad.cli.tables import number, pairs
from edge_tsad.cli.workstation import needs, seed_option
from edge_tsad.errors import ConfigError

if TYPE_CHECKING:
    from edge_tsad.demo.story import Outcome

__all__ = ["command"]

ARCHIVE_SLACK = 100
"""Points beside the label within which the UCR archive counts a hit."""


@click.command(
    name="demo",
    help="""The whole job once: train, export, bundle, run beside a broker, print the alerts.

The data is arterial blood pressure with one labelled anomaly (UCR archive no. 135), shipped by
aeon.

\b
Example:
  edge-tsad demo --out build/demo
""",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("build/demo"),
    show_default=True,
    help="Folder for everything that the demo makes.",
)
@seed_option("Of everything drawn at random.")
def command(out: Path, seed: int) -> None:
    """Play the story, print the table, draw the picture."""
    with needs("all"):
        from edge_tsad.demo.data import blood_pressure
        from edge_tsad.demo.picture import draw
        from edge_tsad.demo.story import play
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out: {out} cannot be made: {error.strerror}") from error
    outcome = play(blood_pressure(), out, seed, click.echo)
    threshold = next(a["threshold"] for a in outcome.alerts) if outcome.alerts else float("nan")
    draw(outcome, threshold, out / "demo.png")
    click.echo("\n" + "\n".join(pairs(summary(outcome))))
    click.echo(f"\neverything is in {out}; see demo.png")


def summary(outcome: Outcome) -> dict[str, str]:
    """The closing table: the labelled anomaly against the alerts, and what it cost."""
    recording, manifest = outcome.recording, outcome.bundle.manifest
    new = [alert for alert in outcome.alerts if alert["type"] == "new"]
    last = {alert["id"]: alert for alert in outcome.alerts}
    spans = [
        (a["onset_index"] + outcome.offset, last[a["id"]]["index"] + outcome.offset) for a in new
    ]
    slack = ARCHIVE_SLACK
    hits = [s for s in spans if s[0] <= recording.end + slack and s[1] >= recording.begin - slack]
    (stream,) = outcome.stats["streams"].values()
    latency = stream["latency_ms"]
    files = (f"{Path(f.path).name} {number(f.size)} B" for f in manifest.files)
    replayed = len(recording.values) - recording.history
    return {
        "labelled anomaly": f"points {recording.begin} to {recording.end}",
        "alerts": ", ".join(f"{begin} to {end}" for begin, end in spans) or "none",
        "hits": "yes" if hits else "NO: the anomaly was missed",
        "false openings": f"{len(spans) - len(hits)} in {number(replayed)} points",
        "calibration": new[0]["calibration"]["state"] if new else "unknown without an alert",
        "model files": ", ".join(files),
        "bundle": f"{number(outcome.path.stat().st_size)} B",
        "run by": f"{stream['backend']} with {stream['model']}",
        "latency per window": f"{latency['p50']:.2f} ms (median), {latency['p99']:.2f} ms (99 %)",
        "peak memory of the runtime": f"{outcome.stats['peak_rss_mb']:.0f} MB",
    }
