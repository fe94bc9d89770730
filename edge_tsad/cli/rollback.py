"""``edge-tsad rollback``: an earlier bundle serves again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from edge_tsad.cli.gateways import Way, ask_all, gateway_options, status_lines
from firmware_bridge.report import StatusReport

__all__ = ["command"]


@click.command(
    name="rollback",
    help="""End a trial, or return to a bundle that was committed on the gateway before.

Without --to: the bundle before the active one. None is chosen whose counter is below what the
gateway still accepts.

\b
Examples:
  edge-tsad rollback pi@gateway
  edge-tsad rollback pi@gateway --to 1.1
""",
)
@click.argument("gateways", nargs=-1, required=True)
@click.option("--to", default="", help="Version, or the beginning of a digest.")
@gateway_options
def command(*, gateways: tuple[str, ...], to: str, way: Way) -> int:
    """Roll back on all gateways at once."""

    def show(gateway: str, table: dict[str, Any]) -> Sequence[str]:
        return status_lines(gateway, StatusReport.read(table, gateway))

    return ask_all(way.to(gateways), "rollback", show, to=to)
