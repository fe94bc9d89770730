"""Who may sign bundles, and whether one of them did: bytes in, verified objects out, no I/O.

``manifest.sig`` is JSON: ``{"signatures": [{"key": id, "signature": hex}, …]}``. One good signature
of one trusted key suffices; more let old and new gateways read one bundle while keys change. Signed
are a domain tag and the exact bytes of ``manifest.json``, which lists every other member.

The trusted keys of a gateway are a document of their own, ``{"signatures": […], "trusted":
{"keys": […], "version": n}}``, signed over its domain tag and the canonical JSON of ``trusted``.
The roles of a key say whether it may sign bundles, key sets, or both, so that the key that changes
keys can stay in a safe. A gateway that holds version n takes a later version only if a key of its
version n signed it, and a key of the new one too (a set that nobody could change any more would
lock it out). Nothing expires: a gateway often has no clock.

Source: rotation as in The Update Framework 1.0, section 5.3.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_tsad.decode import canonical_json, decode, encode, parse_json
from edge_tsad.errors import SignatureError
from edge_tsad.keys import PublicKey, Role, Signature, SigningKey

__all__ = [
    "KeySet",
    "PublicKey",
    "Signature",
    "Signatures",
    "SigningKey",
    "TrustedKeys",
    "sign_keys",
    "sign_manifest",
]

BUNDLE_TAG = b"edge-tsad-bundle-v1\0"
KEYS_TAG = b"edge-tsad-keys-v1\0"
MOST_SIGNATURES = 16
MOST_KEYS = 64


@dataclass(frozen=True, slots=True)
class Signatures:
    """The content of ``manifest.sig``."""

    signatures: tuple[Signature, ...]

    def __post_init__(self) -> None:
        check_signatures(self.signatures)

    @classmethod
    def from_json(cls, data: bytes) -> Signatures:
        """The signatures in ``data``; nothing is verified yet.

        Raises:
            SignatureError: it has another form.
        """
        table = parse_json(data, "manifest.sig", SignatureError)
        return decode(cls, table, "manifest.sig", SignatureError)

    def to_json(self) -> bytes:
        """The canonical spelling."""
        return canonical_json({"signatures": encode(self.signatures)})

    def adding(self, signature: Signature) -> Signatures:
        """These and ``signature``, which replaces an earlier one of its key."""
        others = [one for one in self.signatures if one.key != signature.key]
        return Signatures((*others, signature))


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys that may sign; ``version`` starts at 1 and grows with each change."""

    version: int
    keys: tuple[PublicKey, ...]

    def __post_init__(self) -> None:
        if self.version < 1:
            raise SignatureError(f"trusted.version: {self.version} is less than 1")
        ids = [key.id for key in self.keys]
        if len(set(ids)) != len(ids) or len(ids) > MOST_KEYS:
            raise SignatureError(f"trusted.keys: has a key twice or more than {MOST_KEYS} keys")
        for role in ("bundle", "keys"):
            if not any(role in key.roles for key in self.keys):
                raise SignatureError(f"trusted.keys: no key has the role {role!r}")

    def message(self) -> bytes:
        """The bytes that are signed."""
        return KEYS_TAG + canonical_json(encode(self))


@dataclass(frozen=True, slots=True)
class KeySetDocument:
    """A key set and the signatures below it, as stored; nothing is verified yet."""

    trusted: KeySet
    signatures: tuple[Signature, ...]

    def __post_init__(self) -> None:
        check_signatures(self.signatures)


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """A key set that was verified; made only by :meth:`first` and :meth:`update`."""

    keys: KeySet

    @classmethod
    def first(cls, document: bytes) -> TrustedKeys:
        """The keys a device starts with: whoever hands over ``document`` is trusted.

        Raises:
            SignatureError: it is malformed, or none of its own keys of role ``keys`` signed it.
        """
        stored = read_keys(document)
        require(stored.trusted, "keys", stored.signatures, stored.trusted.message(), "the key set")
        return cls(stored.trusted)

    def update(self, document: bytes) -> TrustedKeys:
        """The keys after ``document``; the very set that is held already is taken without effect.

        Raises:
            SignatureError: it is malformed, older, or not signed by both an old and a new key.
        """
        stored = read_keys(document)
        message = stored.trusted.message()
        require(self.keys, "keys", stored.signatures, message, "the key set, by the keys held here")
        require(stored.trusted, "keys", stored.signatures, message, "the key set, by its own keys")
        if stored.trusted == self.keys:
            return self
        if stored.trusted.version <= self.keys.version:
            raise SignatureError(
                f"the key set has version {stored.trusted.version}; "
                f"version {self.keys.version} is held here already"
            )
        return TrustedKeys(stored.trusted)

    def verify(self, manifest: bytes, signature: bytes | None) -> PublicKey:
        """The trusted key that signed ``manifest``.

        Args:
            manifest: the exact bytes of ``manifest.json``.
            signature: the bytes of ``manifest.sig``, or None where there is none.

        Raises:
            SignatureError: unsigned, signed by nobody known, or altered; the message says which.
        """
        if signature is None:
            raise SignatureError("is not signed (it has no manifest.sig)")
        signatures = Signatures.from_json(signature).signatures
        return require(self.keys, "bundle", signatures, BUNDLE_TAG + manifest, "the manifest")


def sign_manifest(manifest: bytes, key: SigningKey, earlier: bytes | None = None) -> bytes:
    """The content of ``manifest.sig`` with ``key``'s signature added to those of ``earlier``.

    Raises:
        SignatureError: ``earlier`` is malformed, or there are too many signatures.
    """
    signatures = Signatures(()) if earlier is None else Signatures.from_json(earlier)
    return signatures.adding(key.sign(BUNDLE_TAG + manifest)).to_json()


def sign_keys(keys: KeySet, *signers: SigningKey) -> bytes:
    """The key set document signed by ``signers``: one of the set before, and one of this set."""
    signatures = {key.public("key").id: key.sign(keys.message()) for key in signers}
    return canonical_json(encode(KeySetDocument(keys, tuple(signatures.values()))))


def read_keys(document: bytes) -> KeySetDocument:
    """A key set document; only its canonical spelling is read, so that one set has one text.

    Raises:
        SignatureError: it has another form.
    """
    table = parse_json(document, "the key set", SignatureError)
    stored = decode(KeySetDocument, table, "", SignatureError)
    if canonical_json(encode(stored)) != document:
        raise SignatureError("the key set is not in its canonical form; it was edited by hand")
    return stored


def require(
    keys: KeySet, role: Role, signatures: tuple[Signature, ...], message: bytes, what: str
) -> PublicKey:
    """The key of ``keys`` with ``role`` that signed ``message``."""
    known = {key.id: key for key in keys.keys if role in key.roles}
    candidates = [(known[one.key], one) for one in signatures if one.key in known]
    for key, one in candidates:
        if key.accepts(one.signature, message):
            return key
    if candidates:
        raise SignatureError(f"the signature of {what} is wrong; it was altered or is of another")
    signers = ", ".join(one.key for one in signatures) or "nobody"
    raise SignatureError(f"the signature of {what} is by no trusted key, but by {signers}")


def check_signatures(signatures: tuple[Signature, ...]) -> None:
    """Refuse too many, and two of one key."""
    if len(signatures) > MOST_SIGNATURES or len({s.key for s in signatures}) != len(signatures):
        raise SignatureError(f"signatures: more than {MOST_SIGNATURES}, or two of one key")
