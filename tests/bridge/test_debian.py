"""Debian packages for a gateway: where they come from, and what is missing for them."""

from __future__ import annotations

import base64
import io
import re
import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from edge_tsad.errors import TransportError
from firmware_bridge.provision import apt
from firmware_bridge.provision.apt import AptMissingError
from firmware_bridge.provision.debian import STATUS, Installed, fetch_packages
from firmware_bridge.provision.steps import run_step


@pytest.mark.parametrize(
    "listed",
    [
        "",
        "x://mirror/ubuntu jammy main Ubuntu Packages",
        "x://mirror/d bookworm contrib Debian Packages",
    ],
)
def test_a_machine_without_a_debian_archive_is_told(
    listed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt, "run_step", lambda *_, **__: listed)
    with pytest.raises(AptMissingError, match=r"sources\.list\.d"):
        apt.mirror()


def test_the_archive_is_that_of_the_machines_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = (
        "x://other/debian bookworm main Raspberry Pi Foundation Packages\n"
        "x://mirror/debian bookworm main Debian Packages\n"
        "x://mirror/debian bookworm main Debian Translations\n"
    )
    monkeypatch.setattr(apt, "run_step", lambda *_, **__: listed)
    assert apt.mirror() == "x://mirror/debian"


def test_a_step_that_fails_or_hangs_is_a_sentence() -> None:
    with pytest.raises(TransportError, match="could not stop: because"):
        run_step("stop", [sys.executable, "-c", "raise SystemExit('because')"], timeout_s=20)
    with pytest.raises(TransportError, match="could not wait: took more than"):
        run_step("wait", [sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.2)
    with pytest.raises(TransportError, match=r"could not begin: .*No such file"):
        run_step("begin", ["/nowhere/program"])


def said(*sources: str, files: dict[str, bytes] | None = None) -> str:
    """What a gateway answers to ``packages.sh``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in ({STATUS: b"Package: x\n"} if files is None else files).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return "\n".join(
        [
            "Welcome!", "edge_tsad_packages=1", "system=raspbian", "release=bookworm",
            "architecture=armhf", *(f"source={source}" for source in sources),
            f"files={base64.b64encode(buffer.getvalue()).decode()}", "end=1", "",
        ]
    )  # fmt: skip


MAIN = "Packages armhf http://mirror/pi bookworm main"


def test_the_gateways_own_archives_and_keys_are_asked(tmp_path: Path) -> None:
    key, other = "usr/share/keyrings/pi.gpg", "etc/apt/trusted.gpg.d/old.asc"
    files = {STATUS: b"", key: b"k", other: b"o", "etc/apt/keyrings/unused.gpg": b"u"}
    text = said(
        f"{MAIN} /{key}",
        "Packages armhf http://mirror/more bookworm contrib",
        MAIN + " ",
        files=files,
    )
    archive = Installed.read(text, "gw").archive(tmp_path / "keys")
    assert archive.keys
    assert [path.read_bytes() for path in archive.keys.iterdir()] == [b"o"]
    signed, more = archive.sources[:2]
    found = re.fullmatch(r"deb \[arch=armhf signed-by=(\S+)\] \S+/pi bookworm main", signed)
    assert found
    assert Path(found[1]).read_bytes() == b"k"
    assert more.startswith("deb [arch=armhf] ")


@pytest.mark.parametrize(
    "source",
    [
        "Packages armhf cdrom:[Debian]/ bookworm main",
        "Packages armhf rsh://host/pi bookworm main",
        "Packages armhf file:/srv/pi bookworm main",
        "Packages armhf http://mirror/pi] bookworm main",
        "Packages armhf http://mirror/pi [trusted=yes] main",
        "Packages amd64 http://mirror/pi bookworm main",
        "Translations armhf http://mirror/pi bookworm main",
        "Packages armhf http://mirror/pi",
    ],
)
def test_no_other_source_is_taken_from_a_gateway(source: str) -> None:
    assert Installed.read(said(source), "gw").sources == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        said()[:-6],
        said(files={}),
        said().replace("files=", "files=?"),
        said().replace("files=", "files=AAAA"),
        re.sub("files=.*", "files=", said()),
    ],
)
def test_an_answer_about_packages_that_is_none_is_said(text: str) -> None:
    with pytest.raises(TransportError, match=r"^gw: (does not say|what it says of)"):
        Installed.read(text, "gw")


def test_without_apt_here_the_owner_is_told_of_debs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    with pytest.raises(AptMissingError, match=r"apt-get.* missing here.*--debs FOLDER.*numpy"):
        fetch_packages(["python3-numpy"], Installed.read(said(MAIN), "gw"), tmp_path)


def test_a_gateway_without_archives_is_told_so(tmp_path: Path) -> None:
    """It is no Debian, so this machine's archive does not fit."""
    with pytest.raises(TransportError, match=r"names no archive.*--debs FOLDER"):
        fetch_packages(["python3-numpy"], Installed.read(said(), "gw"), tmp_path)
    assert not list(tmp_path.iterdir())
