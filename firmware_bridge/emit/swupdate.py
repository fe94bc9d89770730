"""SWUpdate: a cpio archive whose description is signed; the file goes straight into the inbox."""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from edge_tsad.errors import SignatureError
from edge_tsad.files import read_limited
from firmware_bridge.emit.base import Artefact, Signer

__all__ = ["emit_swupdate"]

PEM_BYTES = 64 << 10

DESCRIPTION = """\
software =
{{
  version = "{version}";
  description = "{label}";
  hardware-compatibility: [ "{compatible}" ];
  files: (
    {{
      filename = "{filename}";
      path = "{inbox}/{filename}";
      sha256 = "{digest}";
      properties = {{ create-destination = "true"; atomic-install = "true"; }};
    }}
  );
}}
"""


def emit_swupdate(artefact: Artefact) -> bytes:
    """The archive; its description carries a CMS signature of the fleet.

    Raises:
        SignatureError: no certificate and key were given, or they cannot be used.
    """
    description = DESCRIPTION.format(
        version=artefact.version,
        label=artefact.label,
        compatible=artefact.compatible,
        filename=artefact.filename,
        inbox=artefact.inbox,
        digest=hashlib.sha256(artefact.data).hexdigest(),
    ).encode()
    signature = sign(description, artefact.require_signer("SWUpdate"))
    return cpio(
        [
            ("sw-description", description),
            ("sw-description.sig", signature),
            (artefact.filename, artefact.data),
        ]
    )


def sign(data: bytes, signer: Signer) -> bytes:
    """A detached CMS signature in DER."""
    pem = read_limited(signer.key, PEM_BYTES, SignatureError)
    try:
        certificate = x509.load_pem_x509_certificate(
            read_limited(signer.certificate, PEM_BYTES, SignatureError)
        )
        key = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            raise SignatureError(f"{signer.key}: SWUpdate knows RSA and elliptic curves only")
        builder = pkcs7.PKCS7SignatureBuilder().set_data(data)
        builder = builder.add_signer(certificate, key, hashes.SHA256())
        options = [
            pkcs7.PKCS7Options.DetachedSignature,
            pkcs7.PKCS7Options.Binary,
            pkcs7.PKCS7Options.NoCapabilities,
        ]
        return builder.sign(serialization.Encoding.DER, options)
    except (ValueError, TypeError) as e:
        raise SignatureError(f"{signer.key}: the fleet's key cannot be used: {e}") from e


def cpio(members: list[tuple[str, bytes]]) -> bytes:
    """An archive of the format ``crc`` (070702), the only one besides ``newc`` that it reads."""
    parts = []
    for number, (name, data) in enumerate([*members, ("TRAILER!!!", b"")], 1):
        checksum = sum(data) & 0xFFFFFFFF
        mode = 0o100644 if data else 0
        fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, checksum]
        header = b"070702" + b"".join(b"%08X" % field for field in fields)
        parts.append(padded(header + name.encode() + b"\0") + padded(data))
    whole = b"".join(parts)
    return whole + bytes(-len(whole) % 512)


def padded(data: bytes) -> bytes:
    """``data`` to a multiple of four bytes."""
    return data + bytes(-len(data) % 4)
