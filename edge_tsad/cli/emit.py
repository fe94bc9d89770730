"""``edge-tsad emit``: a bundle as an artefact of a fleet's own update service."""

from __future__ import annotations

from pathlib import Path

import click

from edge_tsad.errors import ConfigError, SignatureError
from edge_tsad.files import write_atomically
from firmware_bridge.emit import EMITTERS, Artefact, Signer
from firmware_bridge.emit.base import DEFAULT_INBOX
from firmware_bridge.flash import Payload

__all__ = ["command"]

SUFFIX = {"rauc": ".raucb", "mender": ".mender", "swupdate": ".swu"}


@click.command(
    name="emit",
    help="""Wrap a signed BUNDLE for RAUC, Mender or SWUpdate.

The artefact puts the bundle into the inbox of the gateway's agent, which verifies, tests and tries
it as always: what your fleet signs on top does not replace the bundle's own signature. RAUC's is
made by the installed `rauc`; Mender's is signed afterwards with `mender-artifact sign`.

\b
Examples:
  edge-tsad emit mender pump-1.2.tsad --compatible raspberrypi4
  edge-tsad emit rauc pump-1.2.tsad --compatible gateway --certificate fleet.pem --key fleet.key
  edge-tsad emit swupdate pump-1.2.tsad --compatible 1.0 --certificate fleet.pem --key fleet.key
""",
)
@click.argument("kind", type=click.Choice(list(EMITTERS)))
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--compatible", required=True, help="What the fleet calls its kind of gateway.")
@click.option("--inbox", default=DEFAULT_INBOX, show_default=True, help="Inbox in agent.toml.")
@click.option("--certificate", type=click.Path(path_type=Path), help="The fleet's, in PEM.")
@click.option("--key", type=click.Path(path_type=Path), help="The fleet's, in PEM.")
@click.option("--out", type=click.Path(path_type=Path), help="File.  [NAME-VERSION and its suffix]")
def command(
    *,
    kind: str,
    bundle: Path,
    compatible: str,
    inbox: str,
    certificate: Path | None,
    key: Path | None,
    out: Path | None,
) -> int:
    """Emit."""
    payload = Payload.load(bundle)
    manifest = payload.bundle.manifest
    if payload.bundle.signature is None:
        raise SignatureError(f"{bundle}: is not signed; sign it with `edge-tsad sign` first")
    if (certificate is None) != (key is None):
        raise ConfigError("emit: --certificate and --key belong together")
    signer = Signer(certificate, key) if certificate and key else None
    artefact = Artefact(
        manifest.name,
        manifest.version,
        manifest.filename,
        payload.data,
        compatible,
        inbox.rstrip("/"),
        signer,
    )
    data = EMITTERS[kind](artefact)
    path = out or Path(f"{payload.label}{SUFFIX[kind]}")
    write_atomically(path, data, ConfigError)
    click.echo(f"{path}: {len(data):,} bytes; puts {manifest.filename} into {inbox}")
    return 0
