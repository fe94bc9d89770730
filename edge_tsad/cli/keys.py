"""``edge-tsad keys``: make key pairs, and the set of keys that gateways trust."""

from __future__ import annotations

import os
from pathlib import Path

import click

from edge_tsad.cli.tables import printable, table
from edge_tsad.cli.trust import KEY_BYTES, PASSWORD_VARIABLE, load_key, load_keys
from edge_tsad.decode import canonical_json, decode, encode, parse_json
from edge_tsad.errors import SignatureError
from edge_tsad.files import read_limited, write_atomically
from edge_tsad.keys import PublicKey, Role, SigningKey
from edge_tsad.signing import KeySet, TrustedKeys, sign_keys

__all__ = ["command"]

EXAMPLE = """\b
Example:
  edge-tsad keys new release
  edge-tsad keys trust trusted.json --add release.pub --sign release.key
"""
NEW_EXAMPLE = """\b
Example:
  edge-tsad keys new release
"""
TRUST_EXAMPLE = """\b
Example:
  edge-tsad keys trust trusted.json --add release.pub --sign release.key
  edge-tsad keys trust trusted.json --add new.pub --remove 0123456789abcdef \\
    --sign release.key --sign new.key
"""
SHOW_EXAMPLE = """\b
Example:
  edge-tsad keys show trusted.json
"""

FILE = click.Path(path_type=Path)
ROLES: dict[str, tuple[Role, ...]] = {
    "bundle": ("bundle",),
    "keys": ("keys",),
    "both": ("bundle", "keys"),
}


@click.group("keys", short_help="Make keys and the set of trusted keys.", epilog=EXAMPLE)
def command() -> None:
    """Make key pairs, and the signed set of keys that gateways trust."""


@command.command("new", epilog=NEW_EXAMPLE)
@click.argument("name")
@click.option("--role", type=click.Choice(list(ROLES)), default="both", help="What it may sign.")
@click.option("--folder", type=FILE, default=Path(), help="Where to write NAME.key and NAME.pub.")
def new(name: str, role: str, folder: Path) -> None:
    """Make a key pair: NAME.key to keep secret, NAME.pub to hand out.

    The private key is encrypted where EDGE_TSAD_KEY_PASSWORD is set.
    """
    secret, public = folder / f"{name}.key", folder / f"{name}.pub"
    for path in (secret, public):
        if path.exists():
            raise SignatureError(f"{path}: exists already; choose another name")
    key = SigningKey.new()
    description = key.public(name, ROLES[role])
    write_atomically(
        secret, key.to_pem(os.environ.get(PASSWORD_VARIABLE)), SignatureError, mode=0o600
    )
    write_atomically(public, canonical_json(encode(description)), SignatureError)
    click.echo(f"{secret}: private key {description.id}; keep it secret\n{public}: public key")


@command.command("trust", epilog=TRUST_EXAMPLE)
@click.argument("keyset", type=FILE)
@click.option("--add", type=FILE, multiple=True, help="Public key to trust; may be repeated.")
@click.option("--remove", multiple=True, metavar="ID", help="Key to trust no more.")
@click.option(
    "--sign", type=FILE, multiple=True, required=True, help="Private key; may be repeated."
)
def trust(
    keyset: Path, add: tuple[Path, ...], remove: tuple[str, ...], sign: tuple[Path, ...]
) -> None:
    """Make KEYSET, or its next version, signed by a key that it trusted so far."""
    held = load_keys(keyset) if keyset.exists() else None
    keys = {key.id: key for key in held.keys.keys} if held else {}
    for key_id in remove:
        if keys.pop(key_id, None) is None:
            raise SignatureError(f"--remove: {key_id} is not in {keyset}")
    keys.update((key.id, key) for key in map(read_public, add))
    version = held.keys.version + 1 if held else 1
    document = sign_keys(KeySet(version, tuple(keys.values())), *map(load_key, sign))
    result = held.update(document) if held else TrustedKeys.first(document)
    write_atomically(keyset, document, SignatureError)
    click.echo(f"{keyset}: version {version} of the trusted keys, {len(result.keys.keys)} in all")


@command.command("show", epilog=SHOW_EXAMPLE)
@click.argument("keyset", type=FILE)
def show(keyset: Path) -> None:
    """List the keys in KEYSET."""
    keys = load_keys(keyset).keys
    click.echo(f"version {keys.version}")
    rows = [[key.id, printable(key.name), " and ".join(key.roles)] for key in keys.keys]
    for line in table(["id", "name", "may sign"], rows):
        click.echo(line)


def read_public(path: Path) -> PublicKey:
    """The public key in a file that ``keys new`` wrote.

    Raises:
        SignatureError: it cannot be read or is no public key.
    """
    data = read_limited(path, KEY_BYTES, SignatureError)
    table_ = parse_json(data, str(path), SignatureError)
    try:
        return decode(PublicKey, table_, "", SignatureError)
    except SignatureError as e:
        raise SignatureError(f"{path}: {e}") from e
