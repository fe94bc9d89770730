"""``edge-tsad check``: everything that is wrong with a configuration, before it runs."""

from __future__ import annotations

from pathlib import Path

import click

from edge_tsad.checking import Examination, examine
from edge_tsad.cli.tables import pairs, table
from edge_tsad.config import GatewayConfig
from edge_tsad.runtime import payload
from edge_tsad.runtime.acl import mosquitto_acl
from edge_tsad.runtime.opening import OpenStream

__all__ = ["command"]


@click.command(
    name="check",
    help="""Find everything that is wrong with CONFIG, and show what it would run.

Every key is checked, every bundle opened, every model loaded, every source made; nothing is
written, and the broker is not asked. The status is 2 if something is wrong.

\b
Examples:
  edge-tsad check gateway.toml
  edge-tsad check gateway.toml --acl > /etc/mosquitto/edge-tsad.acl
""",
)
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--acl", is_flag=True, help="Print the broker's rights as a mosquitto acl_file.")
def command(*, config: Path, acl: bool) -> int:
    """Show problems, or the streams, or the ACL."""
    found = examine(config)
    if found.problems or found.config is None:
        for problem in found.problems:
            click.echo(f"{config}: {problem}", err=True)
        count = len(found.problems)
        click.echo(f"edge-tsad: {config} has {count} problem{'s' * (count > 1)}", err=True)
        return 2
    if acl:
        click.echo(mosquitto_acl(found.config), nl=False)
        return 0
    click.echo("\n".join([*pairs(facts_of(found.config)), "", *streams_of(found, found.config)]))
    return 0


def facts_of(config: GatewayConfig) -> dict[str, str]:
    """The gateway in a few lines."""
    shared = [stream for stream in config.streams if stream.bundle and not stream.budget]
    budget = config.budget or "1/7d (1/10000pt without a rate)"
    split = f", split over {len(shared)} streams" if len(shared) > 1 else ""
    return {
        "gateway": f"{config.site}/{config.device}",
        "broker": f"{config.broker.url}, MQTT {config.broker.protocol}",
        "alarm budget": budget + split,
        "data": str(config.folder),
    }


def streams_of(found: Examination, config: GatewayConfig) -> list[str]:
    """A line for each stream."""
    rows = []
    for position, stream in enumerate(config.streams):
        opened = found.opened.get(position)
        budget = stream.budget or "its part"
        judged = ["-"] * 5 if opened is None else judged_by(opened, budget)
        recorded = "yes" if stream.record else "by edge-tsad record" if opened is None else "no"
        rows.append([stream.name, stream.source.type, *judged, recorded])
    header = (
        "stream", "source", "bundle", "run by", "budget", "false alarms", "threshold", "recorded",
    )  # fmt: skip
    lines = table(header, rows)
    if len(found.opened) < len(config.streams):
        lines += ["", "note: a stream without a bundle is refused by edge-tsad run"]
    return lines


def judged_by(stream: OpenStream, budget: str) -> list[str]:
    """Bundle, runtime and file, budget, expected openings, how far the threshold is believed."""
    facts = stream.facts
    calibration = payload.calibration(facts)
    openings = calibration["openings"]
    span = "7 days" if calibration["per"] == "7d" else "10,000 points"
    expected = "unknown" if openings is None else f"{openings:.3g} in {span}"
    threshold = f"{facts.threshold.value:.4g} {facts.threshold.state}"
    runner = f"{stream.backend.name} {stream.version}, {stream.path}"
    return [facts.bundle, runner, budget, expected, threshold]
