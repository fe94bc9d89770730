"""The units are what systemd understands, and shut in what they run."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_tsad.service import unit_text

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(
    ANALYZE is None, reason="SYSTEMD IS MISSING: its units are not verified (apt install systemd)"
)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    path = tmp_path / "edge-tsad.service"
    path.write_text(unit_text(executable="/bin/true", config="/etc/gateway.toml"))
    return path


def analyze(*arguments: str) -> str:
    assert ANALYZE
    done = subprocess.run(
        [ANALYZE, *arguments], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_unit_runs_what_it_is_told() -> None:
    text = unit_text(executable="/opt/x/bin/edge-tsad", config="/etc/a.toml", memory_max="99M")
    assert "ExecStart=/opt/x/bin/edge-tsad run /etc/a.toml\n" in text
    assert "MemoryMax=99M\n" in text and "@" not in text.replace("@system-service", "").replace(
        "~@privileged @resources", ""
    )
    assert "Type=notify" in text and "WatchdogSec=" in text


@needs_systemd
def test_systemd_finds_nothing_wrong(unit: Path) -> None:
    assert analyze("verify", str(unit)) == ""


@needs_systemd
def test_a_mistake_in_a_unit_is_found(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("Restart=on-failure", "Restart=perhaps"))
    assert "perhaps" in analyze("verify", str(unit))


@needs_systemd
def test_what_it_runs_is_shut_in(unit: Path) -> None:
    said = analyze("security", "--offline=yes", str(unit))
    found = re.search(r"Overall exposure level.*: ([\d.]+)", said)
    assert found and float(found[1]) <= 2.0
