from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from oracles import bundles

from edge_tsad.bundle import write_bundle
from edge_tsad.cli import keys, sign, verify
from edge_tsad.errors import EdgeTsadError, SignatureError


def call(command: click.Command, *arguments: object) -> str:
    """The output; errors of the user are raised."""
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if isinstance(result.exception, EdgeTsadError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGE_TSAD_KEY_PASSWORD", raising=False)
    return tmp_path


@pytest.fixture
def bundle(folder: Path) -> Path:
    return write_bundle(folder, bundles.manifest(), bundles.content())


def test_from_keys_to_a_verified_bundle(bundle: Path, folder: Path) -> None:
    shown = call(keys.command, "new", "release")
    assert (folder / "release.key").stat().st_mode & 0o777 == 0o600
    identity = shown.split("private key ")[1][:16]
    trust = ("trust", "trusted.json", "--add", "release.pub", "--sign", "release.key")
    assert "version 1" in call(keys.command, *trust)
    assert f"{identity}  release  bundle and keys" in call(keys.command, "show", "trusted.json")
    assert identity in call(sign.command, bundle, "--key", "release.key", "--output", "signed.tsad")
    good = call(verify.command, "signed.tsad", "--keys", "trusted.json", "--floor", 7)
    assert f"good; signed by release ({identity}), counter 7" in good
    with pytest.raises(SignatureError, match="is not signed"):
        call(verify.command, bundle, "--keys", "trusted.json")
    with pytest.raises(SignatureError, match="is older than allowed"):
        call(verify.command, "signed.tsad", "--keys", "trusted.json", "--floor", 8)


def test_keys_are_rotated_by_an_old_key(bundle: Path, folder: Path) -> None:
    for name in ("old", "new"):
        call(keys.command, "new", name)
    call(keys.command, "trust", "t.json", "--add", "old.pub", "--sign", "old.key")
    old = call(keys.command, "show", "t.json").splitlines()[-1].split()[0]
    before = Path("t.json").read_bytes()
    change = ("trust", "t.json", "--add", "new.pub", "--remove", old, "--sign", "new.key")
    with pytest.raises(SignatureError, match="by the keys held here"):
        call(keys.command, *change)
    assert Path("t.json").read_bytes() == before
    assert "version 2" in call(keys.command, *change, "--sign", "old.key")
    call(sign.command, bundle, "--key", "old.key")
    with pytest.raises(SignatureError, match="by no trusted key"):
        call(verify.command, bundle, "--keys", "t.json")
    call(sign.command, bundle, "--key", "new.key")
    assert "signed by new" in call(verify.command, bundle, "--keys", "t.json")


def test_a_password_comes_from_the_environment(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_TSAD_KEY_PASSWORD", "sesame")
    call(keys.command, "new", "release")
    assert "ENCRYPTED" in Path("release.key").read_text()
    call(sign.command, bundle, "--key", "release.key")
    monkeypatch.delenv("EDGE_TSAD_KEY_PASSWORD")
    with pytest.raises(SignatureError, match=r"needs a password \(it is taken from EDGE_TSAD_KEY"):
        call(sign.command, bundle, "--key", "release.key")


def test_a_key_is_never_overwritten(folder: Path) -> None:
    call(keys.command, "new", "release")
    before = (folder / "release.key").read_bytes()
    with pytest.raises(SignatureError, match="exists already"):
        call(keys.command, "new", "release")
    assert (folder / "release.key").read_bytes() == before


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (keys.command, ("trust", "t.json", "--sign", "a.key"), "no key has the role"),
        (keys.command, ("trust", "t.json", "--add", "no", "--sign", "a.key"), "no: does not exist"),
        (keys.command, ("trust", "t.json", "--remove", "x", "--sign", "a"), "x is not in t.json"),
        (keys.command, ("trust", "t.json", "--add", "a.key", "--sign", "a.key"), "is no JSON"),
        (keys.command, ("show", "a.pub"), "a.pub: "),
        (keys.command, ("new", "b", "--folder", "no"), "could not be written"),
        (sign.command, ("no.tsad", "--key", "a.key"), "no.tsad: does not exist"),
        (verify.command, ("no.tsad", "--keys", "no"), "no: does not exist"),
        (verify.command, ("no.tsad",), "--keys: is missing"),
    ],
)
def test_what_is_wrong_is_said(
    command: click.Command, arguments: tuple[str, ...], message: str, folder: Path
) -> None:
    call(keys.command, "new", "a")
    with pytest.raises(EdgeTsadError, match=message):
        call(command, *arguments)
    assert sorted(path.name for path in folder.iterdir()) == ["a.key", "a.pub"]


@pytest.mark.parametrize(
    "arguments", [(), ("new",), ("trust",), ("show",)], ids=["keys", "new", "trust", "show"]
)
def test_every_help_has_an_example(arguments: tuple[str, ...]) -> None:
    assert "Example:\n" in call(keys.command, *arguments, "--help")
    assert "Example:\n" in call(sign.command, "--help")
    assert "Example:\n" in call(verify.command, "--help")
