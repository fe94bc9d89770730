"""``edge-tsad history``: what happened to the bundles of a gateway, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from edge_tsad.cli.gateways import Way, ask_all, gateway_options, when
from edge_tsad.cli.tables import table as aligned
from edge_tsad.decode import encode
from firmware_bridge.report import HistoryReport

__all__ = ["command"]


@click.command(
    name="history",
    help="""Show every step of the updates of a gateway, with its reason; the latest is last.

\b
Examples:
  edge-tsad history pi@gateway
  edge-tsad history pi@gateway --limit 200 --json
""",
)
@click.argument("gateways", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one line for each step.")
@gateway_options
def command(
    *,
    gateways: tuple[str, ...],
    limit: int,
    as_json: bool,
    way: Way,
) -> int:
    """Ask all gateways at once."""

    def show(gateway: str, table: dict[str, Any]) -> Sequence[str]:
        entries = HistoryReport.read(table, gateway).entries
        if as_json:
            return [json.dumps({"gateway": gateway, **encode(entry)}) for entry in entries]
        rows = [[str(e.number), when(e), e.label or "-", e.event, e.reason] for e in entries]
        lines = aligned(["", "when", "bundle", "step", "reason"], rows)
        return [f"{gateway}: {'nothing has happened yet' if not entries else ''}".strip(), *lines]

    return ask_all(way.to(gateways), "history", show, limit=limit)
