"""``edge-tsad confirm``: the bundle on trial stays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from edge_tsad.cli.gateways import Way, ask_all, gateway_options, status_lines
from edge_tsad.errors import BundleError
from firmware_bridge.flash import Payload
from firmware_bridge.report import StatusReport

__all__ = ["command"]


@click.command(
    name="confirm",
    help="""Confirm the bundle that is on trial, which commits it.

From then on the gateway accepts no bundle below its minimum counter. With --bundle nothing is
confirmed but that very bundle.

\b
Examples:
  edge-tsad confirm pi@gateway
  edge-tsad confirm pi@gw-1 pi@gw-2 --bundle pump-1.2.tsad
""",
)
@click.argument("gateways", nargs=-1, required=True)
@click.option("--bundle", type=click.Path(path_type=Path), help="What must be on trial.")
@gateway_options
def command(
    *,
    gateways: tuple[str, ...],
    bundle: Path | None,
    way: Way,
) -> int:
    """Confirm on all gateways at once."""
    digest = Payload.load(bundle).bundle.digest if bundle else ""

    def show(gateway: str, table: dict[str, Any]) -> Sequence[str]:
        status = StatusReport.read(table, gateway)
        if status.phase != "committed":
            raise BundleError(f"{gateway}: its phase is {status.phase!r} after the confirmation")
        return status_lines(gateway, status)

    return ask_all(way.to(gateways), "confirm", show, digest=digest)
