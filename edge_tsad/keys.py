"""Ed25519 keys and signatures as values; ``cryptography`` is imported when one is first used.

Source: RFC 8032.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edge_tsad.decode import shorten
from edge_tsad.errors import SignatureError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["PublicKey", "Role", "Signature", "SigningKey"]

HEX = re.compile(r"[0-9a-f]+")

Role = Literal["bundle", "keys"]


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key (32 bytes in hexadecimal), its owner's name and what it may sign."""

    name: str
    public: str
    roles: tuple[Role, ...] = ("bundle", "keys")

    def __post_init__(self) -> None:
        if len(self.public) != 64 or not HEX.fullmatch(self.public):
            raise SignatureError("key.public: is not 64 hexadecimal digits")
        if not self.name.isprintable() or not 1 <= len(self.name) <= 100:
            raise SignatureError(f"key.name: {shorten(self.name)} is no printable name")
        if not self.roles or list(self.roles) != sorted(set(self.roles)):
            raise SignatureError("key.roles: must be bundle, keys or both, in this order")

    @property
    def id(self) -> str:
        """The first 16 digits of the SHA-256 of the key: a hint for look-up, not a proof."""
        return hashlib.sha256(bytes.fromhex(self.public)).hexdigest()[:16]

    def accepts(self, signature: str, message: bytes) -> bool:
        """Whether ``signature`` (hexadecimal) is this key's for ``message``.

        Raises:
            SignatureError: the package ``cryptography`` is not installed.
        """
        ed25519, invalid = load_cryptography()
        try:
            key = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.public))
            key.verify(bytes.fromhex(signature), message)
        except (invalid, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature (64 bytes in hexadecimal) and the id of the key that made it."""

    key: str
    signature: str

    def __post_init__(self) -> None:
        if len(self.key) != 16 or not HEX.fullmatch(self.key):
            raise SignatureError("signature.key: is not 16 hexadecimal digits")
        if len(self.signature) != 128 or not HEX.fullmatch(self.signature):
            raise SignatureError("signature.signature: is not 128 hexadecimal digits")


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private Ed25519 key."""

    private: Ed25519PrivateKey

    @classmethod
    def new(cls) -> SigningKey:
        """A key from the system's randomness."""
        ed25519, _ = load_cryptography()
        return cls(ed25519.Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, data: bytes, password: str | None = None) -> SigningKey:
        """The key in a PKCS#8 PEM file.

        Raises:
            SignatureError: it is no Ed25519 key, or the password is missing or wrong.
        """
        ed25519, _ = load_cryptography()
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

        secret = password.encode() if password else None
        try:
            key = serialization.load_pem_private_key(data, secret)
        except TypeError as e:
            needed = "needs a password" if secret is None else "has no password; give none"
            raise SignatureError(f"the private key {needed}") from e
        except (ValueError, UnsupportedAlgorithm) as e:
            raise SignatureError("the private key is damaged or its password is wrong") from e
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise SignatureError("the private key is not of the kind Ed25519")
        return cls(key)

    def to_pem(self, password: str | None = None) -> bytes:
        """The key as PKCS#8 PEM, encrypted where a password is given."""
        from cryptography.hazmat.primitives import serialization as s  # noqa: PLC0415

        encryption = s.BestAvailableEncryption(password.encode()) if password else s.NoEncryption()
        return self.private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, encryption)

    def public(self, name: str, roles: tuple[Role, ...] = ("bundle", "keys")) -> PublicKey:
        """The public half."""
        return PublicKey(name, self.private.public_key().public_bytes_raw().hex(), roles)

    def sign(self, message: bytes) -> Signature:
        """The signature of ``message``."""
        return Signature(self.public("key").id, self.private.sign(message).hex())


def load_cryptography() -> tuple[Any, type[Exception]]:
    """The module of Ed25519 and the exception of a wrong signature, imported when first needed."""
    try:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415
    except ImportError as e:
        raise SignatureError(
            "signatures need the package cryptography: pip install cryptography"
        ) from e
    return ed25519, InvalidSignature
