"""``edge-tsad verify``: is a bundle whole, signed by a trusted key, and new enough?"""

from __future__ import annotations

from pathlib import Path

import click

from edge_tsad.bundle import open_bundle
from edge_tsad.cli.trust import keys_option, load_keys
from edge_tsad.errors import SignatureError

__all__ = ["command"]

EXAMPLE = """\b
Example:
  edge-tsad verify pump-1.0.tsad --keys trusted.json --floor 7
"""


@click.command("verify", short_help="Check a bundle's signature and content.", epilog=EXAMPLE)
@click.argument("bundle", type=click.Path(path_type=Path))
@keys_option
@click.option(
    "--floor", type=click.IntRange(min=0), default=0, help="Least counter that is accepted."
)
def command(bundle: Path, keys: Path | None, floor: int) -> None:
    """Check that BUNDLE is whole, signed by one of the trusted keys, and not too old."""
    if keys is None:
        raise SignatureError(
            "--keys: is missing; a signature can only be checked against trusted keys "
            "(edge-tsad info shows a bundle without checking)"
        )
    trusted = load_keys(keys)
    opened = open_bundle(bundle, trusted=trusted)
    opened.require_counter(floor)
    signer = trusted.verify(opened.manifest_bytes, opened.signature)
    click.echo(
        f"{bundle}: good; signed by {signer.name} ({signer.id}), counter "
        f"{opened.manifest.counter}, digest {opened.digest}"
    )
