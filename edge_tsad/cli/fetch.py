"""``edge-tsad fetch``: what gateways have recorded, brought home."""

from __future__ import annotations

from pathlib import Path

import click

from edge_tsad.cli.durations import duration_ns
from edge_tsad.cli.gateways import Way, gateway_options
from edge_tsad.cli.run import plain
from edge_tsad.cli.tables import printable
from edge_tsad.errors import EdgeTsadError
from firmware_bridge.fetch import cut_windows, fetch
from firmware_bridge.flash import Connection

__all__ = ["command"]


@click.command(
    name="fetch",
    help="""Bring home what gateways have recorded: history, alerts, and the data around each alert.

A folder for each gateway: `history/` (as `edge-tsad record` writes it: `edge-tsad train` reads it),
`alerts.jsonl`, and `windows/`, a CSV file for each alert. A second call brings only what is new.

\b
Examples:
  edge-tsad fetch pi@gateway --out field
  edge-tsad fetch pi@gw-1 pi@gw-2 --out field --around 2h
  edge-tsad train field/pi-gateway/history/pump --out retrained
""",
)
@click.argument("gateways", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("fetched"), show_default=True)
@click.option("--around", default="30min", show_default=True, help="Before and after an alert.")
@gateway_options
def command(*, gateways: tuple[str, ...], out: Path, around: str, way: Way) -> int:
    """Fetch from one after another."""
    around_ns = duration_ns(around, "--around") or 0
    failed = 0
    for transport in way.to(gateways):
        folder, connection = out / plain(transport.name.replace("@", "-")), Connection(transport)
        try:
            found = fetch(connection, folder)
            windows = cut_windows(folder, around_ns)
        except EdgeTsadError as e:
            failed += 1
            click.echo(printable(f"edge-tsad: {e}"), err=True)
        else:
            text = (
                f"{transport.name}: {found.new_bytes:,} new bytes of history in {found.files} "
                f"file(s), {found.alerts} new alert message(s), {len(windows)} window(s) in "
                f"{folder}"
            )
            click.echo(printable(text))
        finally:
            connection.close()
    return 2 if failed else 0
