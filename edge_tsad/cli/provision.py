"""``edge-tsad provision``: from a bare Debian or Raspberry Pi OS to a running service."""

from __future__ import annotations

import re
from pathlib import Path

import click

from edge_tsad.cli.tables import printable
from edge_tsad.cli.trust import KEY_BYTES
from edge_tsad.config import load_config
from edge_tsad.errors import ConfigError, EdgeTsadError, SignatureError
from edge_tsad.files import read_limited
from edge_tsad.signing import TrustedKeys
from firmware_bridge.provision.provision import Gift, provision
from firmware_bridge.transports.ssh import SshTransport

__all__ = ["command"]


@click.command(
    name="provision",
    help="""Set up gateways over SSH, from a bare Debian or Raspberry Pi OS to a running service.

Known are bookworm and trixie on 64- and 32-bit ARM and on PCs. Everything is fetched here and
carried along, so the gateway needs no internet; for a 32-bit one that includes Debian's numpy with
all that it needs and the gateway lacks. That takes an apt here; where there is none, give the
packages by --debs. What is there already is left; it may be run again at any time.

\b
Examples:
  edge-tsad provision pi@gateway --keys trusted.json --config gateway.toml
  edge-tsad provision pi@gateway --dry-run
  edge-tsad provision pi@old-gateway --debs ./armhf-packages
""",
)
@click.argument("gateways", nargs=-1, required=True)
@click.option("--config", type=click.Path(path_type=Path), help="Its gateway.toml.")
@click.option("--keys", type=click.Path(path_type=Path), help="The first set of keys it trusts.")
@click.option("--debs", type=click.Path(path_type=Path), help="Folder of Debian packages for it.")
@click.option("--wheel", type=click.Path(path_type=Path), help="Of this program.  [built here]")
@click.option("--prefix", default="", help="Set up below this folder and start nothing.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--ssh-config", type=click.Path(path_type=Path), help="Instead of ~/.ssh/config.")
def command(
    *,
    gateways: tuple[str, ...],
    config: Path | None,
    keys: Path | None,
    debs: Path | None,
    wheel: Path | None,
    prefix: str,
    dry_run: bool,
    ssh_config: Path | None,
) -> int:
    """Provision one after another."""
    if config is not None:
        load_config(config)
    if keys is not None:
        TrustedKeys.first(read_limited(keys, KEY_BYTES, SignatureError))
    if debs is not None and not list(debs.glob("*.deb")):
        raise ConfigError(f"{debs}: is no folder with Debian packages (*.deb)")
    if prefix and not re.fullmatch(r"(/[A-Za-z0-9._+-]+)+", prefix):
        raise ConfigError(f"--prefix: {prefix!r} is no absolute path of plain letters")
    gift = Gift(config, keys, debs, wheel, prefix)
    failed = 0
    for name in dict.fromkeys(gateways):
        try:
            transport = SshTransport(name, config=ssh_config)
            provision(
                transport, gift, dry_run=dry_run, say=lambda text: click.echo(printable(text))
            )
        except EdgeTsadError as e:
            failed += 1
            click.echo(printable(f"edge-tsad: {e}"), err=True)
    return 2 if failed else 0
