"""``edge-tsad status``: which bundle do gateways serve?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from edge_tsad.cli.gateways import Way, ask_all, gateway_options, status_lines
from firmware_bridge.report import StatusReport

__all__ = ["command"]


@click.command(
    name="status",
    help="""Show which bundle each gateway serves, and what happened last.

\b
Examples:
  edge-tsad status pi@gateway
  edge-tsad status pi@gw-1 pi@gw-2 --json
""",
)
@click.argument("gateways", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one line for each gateway.")
@gateway_options
def command(*, gateways: tuple[str, ...], as_json: bool, way: Way) -> int:
    """Ask all gateways at once."""

    def show(gateway: str, table: dict[str, Any]) -> Sequence[str]:
        status = StatusReport.read(table, gateway)
        if as_json:
            return [json.dumps({"gateway": gateway, **table})]
        return status_lines(gateway, status)

    return ask_all(way.to(gateways), "status", show)
