"""``edge-tsad flash``: bring a bundle to gateways, or onto a card or stick."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import click

from edge_tsad.cli.gateways import Way, gateway_options
from edge_tsad.cli.tables import printable
from edge_tsad.cli.trust import KEY_BYTES
from edge_tsad.errors import ConfigError, SignatureError
from edge_tsad.files import read_limited
from firmware_bridge.flash import Order, Payload, Result, flash_all
from firmware_bridge.transports.directory import write_to_directory

__all__ = ["command"]


@click.command(
    name="flash",
    help="""Bring BUNDLE to gateways over SSH, or onto a mounted card or stick.

A gateway takes it only if one of its trusted keys signed it and its golden windows pass there. It
is then on trial: scored beside the active bundle, whose place it takes only if alarm rate, latency
and memory stay in bounds. An upload that was cut goes on where it stopped. Exit status 2 if any
gateway did not take it.

\b
Examples:
  edge-tsad flash pump-1.2.tsad pi@gateway
  edge-tsad flash pump-1.2.tsad pi@gw-1 pi@gw-2 --trial 3600
  edge-tsad flash pump-1.2.tsad pi@gateway --keys trusted.json
  edge-tsad flash pump-1.2.tsad pi@gateway --dry-run
  edge-tsad flash pump-1.2.tsad --directory /media/stick
""",
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("gateways", nargs=-1)
@click.option("--directory", type=click.Path(path_type=Path), help="A mounted card or stick.")
@click.option(
    "--trial", type=click.FloatRange(1, 30 * 86_400), help="Seconds that its trial lasts."
)
@click.option(
    "--keys",
    type=click.Path(path_type=Path),
    help="Trusted keys to hand over first; a key that the gateway trusts must have signed them.",
)
@click.option("--confirm", is_flag=True, help="Let it serve at once: no trial.")
@click.option("--dry-run", is_flag=True, help="Only ask whether it would be accepted.")
@gateway_options
def command(
    *,
    bundle: Path,
    gateways: tuple[str, ...],
    directory: Path | None,
    trial: float | None,
    keys: Path | None,
    confirm: bool,
    dry_run: bool,
    way: Way,
) -> int:
    """Flash."""
    if bool(gateways) == (directory is not None):
        raise ConfigError("flash: give either gateways (user@host) or --directory")
    payload = Payload.load(bundle)
    if payload.bundle.signature is None:
        raise SignatureError(f"{bundle}: is not signed; sign it with `edge-tsad sign` first")
    if directory is not None:
        return to_directory(directory, payload, dry_run)
    transports = way.to(gateways)
    progress = Progress(len(payload.data))
    document = read_limited(keys, KEY_BYTES, SignatureError) if keys else None
    order = Order(trial, document, confirm, dry_run)
    results = flash_all(transports, payload, order, progress)
    progress.end()
    summarize(results)
    return 0 if all(result.good for result in results) else 2


class Progress:
    """Confirmed bytes of each gateway: one line that changes on a terminal, else only the ends."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._offsets: dict[str, int] = {}
        self._lock = threading.Lock()
        self._live = sys.stderr.isatty()

    def __call__(self, gateway: str, offset: int) -> None:
        with self._lock:
            self._offsets[gateway] = offset
            if self._live:
                parts = (f"{name} {100 * n // self.size} %" for name, n in self._offsets.items())
                click.echo(f"\r{printable('  '.join(parts))}", nl=False, err=True)
            elif offset == self.size:
                click.echo(f"{printable(gateway)}: {offset:,} bytes confirmed", err=True)

    def end(self) -> None:
        """Leave the line."""
        if self._live and self._offsets:
            click.echo(err=True)


def summarize(results: list[Result]) -> None:
    """A line for each gateway, and one for all where they are several."""
    for result in results:
        click.echo(printable(f"{result.gateway}: {result.text}"), err=not result.good)
        if result.good and result.status and result.status.phase == "trial":
            click.echo(printable(f"  look: edge-tsad status {result.gateway}"))
    if len(results) > 1:
        click.echo(f"{sum(result.good for result in results)} of {len(results)} gateways")


def to_directory(directory: Path, payload: Payload, dry_run: bool) -> int:
    """Write onto a card or stick."""
    filename = payload.bundle.manifest.filename
    if dry_run:
        click.echo(f"{filename}: {len(payload.data):,} bytes would be written to {directory}")
        return 0
    progress = Progress(len(payload.data))
    for offset in write_to_directory(directory, filename, payload.data):
        progress(str(directory), offset)
    progress.end()
    click.echo(f"{directory}: holds {payload.label}; the gateway takes it when it is put in")
    return 0
