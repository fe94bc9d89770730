"""``edge-tsad sign``: put a signature into a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from edge_tsad.bundle import open_bundle, write_signature
from edge_tsad.cli.trust import load_key
from edge_tsad.signing import sign_manifest

__all__ = ["command"]

EXAMPLE = """\b
Example:
  edge-tsad sign pump-1.0.tsad --key release.key
"""


@click.command("sign", short_help="Sign a bundle.", epilog=EXAMPLE)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    required=True,
    help="Private key; its password, if any, is read from EDGE_TSAD_KEY_PASSWORD.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Where to write the signed bundle; by default BUNDLE itself is replaced.",
)
def command(bundle: Path, key: Path, output: Path | None) -> None:
    """Sign BUNDLE; signatures of other keys in it stay."""
    opened = open_bundle(bundle)
    private = load_key(key)
    target = output or bundle
    signature = sign_manifest(opened.manifest_bytes, private, opened.signature)
    write_signature(target, opened, signature)
    click.echo(f"{target}: signed by key {private.public('key').id}")
