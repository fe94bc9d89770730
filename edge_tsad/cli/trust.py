"""Options and files shared by the commands that deal with keys."""

from __future__ import annotations

import os
from pathlib import Path

import click

from edge_tsad.errors import SignatureError
from edge_tsad.files import read_limited
from edge_tsad.keys import SigningKey
from edge_tsad.signing import TrustedKeys

__all__ = ["PASSWORD_VARIABLE", "keys_option", "load_key", "load_keys"]

PASSWORD_VARIABLE = "EDGE_TSAD_KEY_PASSWORD"  # noqa: S105 - the name of a variable, not a password
KEY_BYTES = 64 << 10

keys_option = click.option(
    "--keys",
    type=click.Path(path_type=Path),
    help="Trusted keys (made by `edge-tsad keys trust`) that must have signed it.",
)


def load_keys(path: Path) -> TrustedKeys:
    """The trusted keys in a file; who chose the file vouches for it.

    Raises:
        SignatureError: it cannot be read or is not signed by one of its own keys.
    """
    data = read_limited(path, KEY_BYTES, SignatureError)
    try:
        return TrustedKeys.first(data)
    except SignatureError as e:
        raise SignatureError(f"{path}: {e}") from e


def load_key(path: Path) -> SigningKey:
    """The private key in a PEM file; its password comes from the environment.

    Raises:
        SignatureError: it cannot be read, is no key, or the password does not fit.
    """
    data = read_limited(path, KEY_BYTES, SignatureError)
    try:
        return SigningKey.from_pem(data, os.environ.get(PASSWORD_VARIABLE))
    except SignatureError as e:
        hint = f" (it is taken from {PASSWORD_VARIABLE})" if "password" in str(e) else ""
        raise SignatureError(f"{path}: {e}{hint}") from e
