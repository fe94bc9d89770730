from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import bundles

from edge_tsad.bundle import parse_bundle
from edge_tsad.bundle.container import pack
from edge_tsad.decode import canonical_json
from edge_tsad.errors import SignatureError
from edge_tsad.keys import PublicKey, Signature, SigningKey
from edge_tsad.signing import KeySet, Signatures, TrustedKeys, sign_keys, sign_manifest

OLD, NEW, STRANGER = SigningKey.new(), SigningKey.new(), SigningKey.new()
MANIFEST = b'{"name":"pump"}\n'


def key_set(version: int, *keys: PublicKey) -> KeySet:
    return KeySet(version, keys)


FIRST = sign_keys(key_set(1, OLD.public("old")), OLD)
HELD = TrustedKeys.first(FIRST)


class TestManifests:
    def test_a_trusted_signature_is_accepted(self) -> None:
        assert HELD.verify(MANIFEST, sign_manifest(MANIFEST, OLD)) == OLD.public("old")

    @pytest.mark.parametrize(
        ("manifest", "signature", "message"),
        [
            (MANIFEST, None, "is not signed"),
            (MANIFEST + b" ", sign_manifest(MANIFEST, OLD), "altered"),
            (MANIFEST, sign_manifest(MANIFEST, STRANGER), "by no trusted key, but by [0-9a-f]{16}"),
            (MANIFEST, b'{"signatures":[]}', "by no trusted key, but by nobody"),
            (MANIFEST, b"{}", "manifest.sig.signatures: is missing"),
            (MANIFEST, b"[]", "manifest.sig: is a list"),
            (MANIFEST, b"\xff", "manifest.sig: is no JSON"),
        ],
    )
    def test_any_other_is_refused_with_its_reason(
        self, manifest: bytes, signature: bytes | None, message: str
    ) -> None:
        with pytest.raises(SignatureError, match=message):
            HELD.verify(manifest, signature)

    def test_a_stranger_cannot_borrow_a_trusted_id(self) -> None:
        forged = Signature(OLD.public("old").id, STRANGER.sign(MANIFEST).signature)
        with pytest.raises(SignatureError, match="altered"):
            HELD.verify(MANIFEST, Signatures((forged,)).to_json())

    def test_a_signature_of_the_bare_manifest_is_of_no_use(self) -> None:
        bare = Signatures((OLD.sign(MANIFEST),)).to_json()
        with pytest.raises(SignatureError, match="altered"):
            HELD.verify(MANIFEST, bare)

    def test_a_key_for_key_sets_may_not_sign_bundles(self) -> None:
        keys = key_set(1, NEW.public("release", ("bundle",)), OLD.public("safe", ("keys",)))
        trusted = TrustedKeys.first(sign_keys(keys, OLD))
        assert trusted.verify(MANIFEST, sign_manifest(MANIFEST, NEW)).name == "release"
        with pytest.raises(SignatureError, match="by no trusted key"):
            trusted.verify(MANIFEST, sign_manifest(MANIFEST, OLD))

    def test_one_good_signature_among_several_suffices(self) -> None:
        both = sign_manifest(MANIFEST, OLD, sign_manifest(MANIFEST, STRANGER))
        assert HELD.verify(MANIFEST, both).name == "old"
        assert sign_manifest(MANIFEST, OLD, both) == both

    def test_too_many_signatures_are_refused(self) -> None:
        table = {"signatures": [{"key": f"{i:016x}", "signature": "0" * 128} for i in range(17)]}
        with pytest.raises(SignatureError, match="more than 16"):
            Signatures.from_json(canonical_json(table))

    @given(st.integers(0, 63), st.integers(1, 255))
    def test_every_bit_of_a_signature_matters(self, position: int, change: int) -> None:
        one = OLD.sign(b"edge-tsad-bundle-v1\0" + MANIFEST)
        raw = bytearray(bytes.fromhex(one.signature))
        raw[position] ^= change
        with pytest.raises(SignatureError):
            HELD.verify(MANIFEST, Signatures((Signature(one.key, raw.hex()),)).to_json())

    @given(st.binary(max_size=300))
    def test_any_bytes_are_refused_with_a_sentence(self, data: bytes) -> None:
        with pytest.raises(SignatureError) as caught:
            HELD.verify(MANIFEST, data)
        assert str(caught.value).isprintable()


class TestKeySets:
    def test_the_first_must_be_signed_by_itself(self) -> None:
        assert HELD.keys.keys == (OLD.public("old"),)
        with pytest.raises(SignatureError, match="by no trusted key"):
            TrustedKeys.first(sign_keys(key_set(1, OLD.public("old")), STRANGER))

    def test_an_old_and_a_new_key_rotate(self) -> None:
        update = sign_keys(key_set(2, NEW.public("new")), OLD, NEW)
        rotated = HELD.update(update)
        assert rotated.verify(MANIFEST, sign_manifest(MANIFEST, NEW)).name == "new"
        with pytest.raises(SignatureError, match="by no trusted key"):
            rotated.verify(MANIFEST, sign_manifest(MANIFEST, OLD))

    @pytest.mark.parametrize(
        ("signers", "message"),
        [
            ((NEW,), "by the keys held here is by no trusted key"),
            ((OLD,), "by its own keys is by no trusted key"),
            ((STRANGER,), "by the keys held here"),
            ((), "but by nobody"),
        ],
    )
    def test_fewer_do_not(self, signers: tuple[SigningKey, ...], message: str) -> None:
        with pytest.raises(SignatureError, match=message):
            HELD.update(sign_keys(key_set(2, NEW.public("new")), *signers))

    def test_versions_may_be_left_out_but_never_go_back(self) -> None:
        fifth = sign_keys(key_set(5, OLD.public("old"), NEW.public("new")), OLD)
        later = HELD.update(fifth)
        assert later.update(fifth) is later
        for document in (FIRST, sign_keys(key_set(5, OLD.public("old")), OLD)):
            with pytest.raises(SignatureError, match="version 5 is held here already"):
                later.update(document)

    def test_a_removed_key_signs_no_more_sets(self) -> None:
        second = HELD.update(sign_keys(key_set(2, NEW.public("new")), OLD, NEW))
        with pytest.raises(SignatureError, match="held here is by no trusted key"):
            second.update(sign_keys(key_set(3, OLD.public("old")), OLD))

    def test_a_key_for_bundles_may_not_change_keys(self) -> None:
        keys = key_set(1, NEW.public("release", ("bundle",)), OLD.public("safe", ("keys",)))
        trusted = TrustedKeys.first(sign_keys(keys, OLD))
        with pytest.raises(SignatureError, match="held here is by no trusted key"):
            trusted.update(sign_keys(key_set(2, NEW.public("release")), NEW))

    def test_a_set_that_nobody_could_use_cannot_be_made(self) -> None:
        for roles in (("bundle",), ("keys",)):
            with pytest.raises(SignatureError, match="no key has the role"):
                key_set(1, OLD.public("old", roles))
        with pytest.raises(SignatureError, match="key twice"):
            key_set(1, OLD.public("a"), OLD.public("b"))
        with pytest.raises(SignatureError, match="less than 1"):
            key_set(0, OLD.public("a"))

    def test_another_spelling_is_refused(self) -> None:
        with pytest.raises(SignatureError, match="edited by hand"):
            TrustedKeys.first(json.dumps(json.loads(FIRST), indent=1).encode())

    def test_altered_keys_are_refused(self) -> None:
        altered = FIRST.replace(OLD.public("old").public.encode(), b"0" * 64)
        with pytest.raises(SignatureError):
            TrustedKeys.first(altered)

    @given(st.integers(0, len(FIRST) - 1), st.integers(0, 255))
    @settings(max_examples=200)
    def test_a_changed_byte_is_refused(self, position: int, value: int) -> None:
        data = bytearray(FIRST)
        data[position] = value
        if bytes(data) != FIRST:
            with pytest.raises(SignatureError) as caught:
                TrustedKeys.first(bytes(data))
            assert str(caught.value).isprintable()


class TestKeys:
    @pytest.mark.parametrize("password", [None, "sesame"])
    def test_a_private_key_is_stored_and_read(self, password: str | None) -> None:
        pem = OLD.to_pem(password)
        assert SigningKey.from_pem(pem, password).public("x") == OLD.public("x")

    @pytest.mark.parametrize(
        ("pem", "password", "message"),
        [
            (OLD.to_pem("sesame"), None, "needs a password"),
            (OLD.to_pem("sesame"), "other", "damaged or its password is wrong"),
            (OLD.to_pem(), "sesame", "has no password"),
            (b"", None, "damaged"),
            (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", None, "damaged"),
        ],
    )
    def test_a_wrong_one_is_refused(self, pem: bytes, password: str | None, message: str) -> None:
        with pytest.raises(SignatureError, match=message):
            SigningKey.from_pem(pem, password)

    def test_another_kind_is_refused(self) -> None:
        from cryptography.hazmat.primitives import serialization as s
        from cryptography.hazmat.primitives.asymmetric import x25519

        pem = x25519.X25519PrivateKey.generate().private_bytes(
            s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()
        )
        with pytest.raises(SignatureError, match="not of the kind Ed25519"):
            SigningKey.from_pem(pem)

    def test_the_first_vector_of_rfc_8032_holds(self) -> None:
        key = PublicKey("rfc", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
        signature = (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        )
        assert key.accepts(signature, b"")
        assert not key.accepts(signature, b"x")

    @pytest.mark.parametrize(
        ("name", "public", "roles", "message"),
        [
            ("", "0" * 64, ("keys",), "key.name"),
            ("\x1b", "0" * 64, ("keys",), "key.name"),
            ("a", "0" * 63, ("keys",), "key.public"),
            ("a", "G" * 64, ("keys",), "key.public"),
            ("a", "0" * 64, (), "key.roles"),
            ("a", "0" * 64, ("keys", "bundle"), "key.roles"),
        ],
    )
    def test_a_malformed_public_key_is_refused(self, name, public, roles, message) -> None:
        with pytest.raises(SignatureError, match=message):
            PublicKey(name, public, roles)


def test_a_signed_bundle_opens_only_with_trusted_keys() -> None:
    members = bundles.members()
    signed = pack({**members, "manifest.sig": sign_manifest(members["manifest.json"], OLD)})
    opened = parse_bundle(signed, "x.tsad", trusted=HELD)
    assert opened.verified
    foreign = pack({**members, "manifest.sig": sign_manifest(members["manifest.json"], NEW)})
    altered = {**bundles.members(counter=9), "manifest.sig": opened.signature or b""}
    for data, message in {
        pack(members): "is not signed",
        foreign: "by no trusted key",
        pack(altered): "altered",
    }.items():
        with pytest.raises(SignatureError, match=rf"^x\.tsad: .*{message}"):
            parse_bundle(data, "x.tsad", trusted=HELD)


def test_an_unsigned_bundle_opens_without_cryptography() -> None:
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(name)
BLOCKED = {"cryptography", "rich", "scipy", "torch", "pandas"}
sys.meta_path.insert(0, Block())
from oracles import bundles
from edge_tsad.bundle import parse_bundle
from edge_tsad.errors import SignatureError
from edge_tsad.keys import PublicKey
parse_bundle(bundles.valid(), "it")
try:
    PublicKey("a", "0" * 64).accepts("0" * 128, b"")
except SignatureError as e:
    print(e)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "pip install cryptography" in done.stdout
