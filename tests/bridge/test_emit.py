"""Artefacts for fleets, read back by the fleets' own tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from bridge.releases import release
from click.testing import CliRunner

from edge_tsad.cli import emit
from edge_tsad.errors import ConfigError, EdgeTsadError, SignatureError

MADE = release(2)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return MADE.write(tmp_path / "any.tsad")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options with the certificate and key of a fleet."""
    folder = tmp_path_factory.mktemp("fleet")
    need("openssl")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "key.pem",
         "-out", folder / "cert.pem", "-subj", "/CN=fleet", "-days", "2"],
        check=True, capture_output=True,
    )  # fmt: skip
    return ["--certificate", str(folder / "cert.pem"), "--key", str(folder / "key.pem")]


def need(tool: str) -> str:
    path = shutil.which(tool)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"{tool} is missing; CI installs it")
        pytest.skip(f"{tool.upper()} IS MISSING: its artefacts are not checked (apt install)")
    return path


def make(kind: str, bundle: Path, *options: str) -> Path:
    out = bundle.with_name(f"out.{kind}")
    words = [kind, str(bundle), "--compatible", "1.0", "--out", str(out), *options]
    done = CliRunner().invoke(emit.command, words, standalone_mode=False)
    if done.exception:
        raise done.exception
    return out


def check(*command: object) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_mender_takes_it_and_its_own_module_puts_it_into_the_inbox(
    bundle: Path, tmp_path: Path
) -> None:
    tool = need("mender-artifact")
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    out = make("mender", bundle, "--inbox", str(inbox))
    assert out.read_bytes() == make("mender", bundle, "--inbox", str(inbox)).read_bytes()
    assert "validated successfully" in check(tool, "validate", out)
    said = check(tool, "read", out)
    assert "Name: tiny-1.2" in said
    assert "single-file" in said
    with tarfile.open(out) as whole:
        whole.extractall(tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "data" / "0000.tar.gz") as payload:
        payload.extractall(tmp_path / "files")
    files = tmp_path / "files"
    assert (files / "dest_dir").read_text().strip() == str(inbox)
    assert (files / (files / "filename").read_text().strip()).read_bytes() == MADE.data


def test_rauc_takes_it_and_its_hook_puts_it_into_the_inbox(
    bundle: Path, fleet: list[str], tmp_path: Path
) -> None:
    tool, unsquash = need("rauc"), need("unsquashfs")
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    out = make("rauc", bundle, *fleet, "--inbox", str(inbox))
    said = check(tool, "info", f"--keyring={fleet[1]}", out)
    assert "Compatible: \t'1.0'" in said
    assert "Filename:  tiny-1.2.tsad" in said
    check(unsquash, "-d", tmp_path / "content", out)
    content = tmp_path / "content"
    subprocess.run(
        [content / "hook.sh", "slot-install"], check=True,
        env={**os.environ, "RAUC_IMAGE_NAME": str(content / "tiny-1.2.tsad")},
    )  # fmt: skip
    assert [file.name for file in inbox.iterdir()] == ["tiny-1.2.tsad"]
    assert (inbox / "tiny-1.2.tsad").read_bytes() == MADE.data


def test_swupdate_takes_it(bundle: Path, fleet: list[str], tmp_path: Path) -> None:
    tool, cpio = need("swupdate"), need("cpio")
    out = make("swupdate", bundle, *fleet)
    # Its exit status is that of whichever of its processes ended last; what it says is not.
    command = [tool, "-c", "-k", fleet[1], "-H", "board:1.0", "-i", out]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "SWUPDATE successful" in said.stdout, said.stdout + said.stderr
    with out.open("rb") as file:
        subprocess.run([cpio, "-i"], stdin=file, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "tiny-1.2.tsad").read_bytes() == MADE.data
    data = bytearray(out.read_bytes())
    data[data.index(b"# Tiny")] ^= 1
    out.write_bytes(data)
    command[1] = "-n"
    wrong = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "SWUPDATE successful" not in wrong.stdout, "an altered bundle must be refused"
    assert wrong.returncode != 0


@pytest.mark.parametrize("kind", ["rauc", "swupdate"])
def test_a_fleet_that_signs_needs_its_key(kind: str, bundle: Path) -> None:
    with pytest.raises(SignatureError, match="give --certificate and --key"):
        make(kind, bundle)
    with pytest.raises(ConfigError, match="belong together"):
        make(kind, bundle, "--key", "x")
    with pytest.raises(EdgeTsadError, match="none"):
        make(kind, bundle, "--certificate", "/none", "--key", "/none")
    assert not list(bundle.parent.glob("out.*"))


def test_nothing_can_be_smuggled_in(bundle: Path, tmp_path: Path) -> None:
    for inbox in ("relative", "/a/../b", "/a'; reboot #", '/a"'):
        with pytest.raises(ConfigError, match="--inbox"):
            make("mender", bundle, "--inbox", inbox)
    with pytest.raises(ConfigError, match="--compatible"):
        make("mender", bundle, "--compatible", 'x"];')
    unsigned = release(2, key=None).write(tmp_path / "unsigned.tsad")
    with pytest.raises(SignatureError, match="is not signed"):
        make("mender", unsigned)
