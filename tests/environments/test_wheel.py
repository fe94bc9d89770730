"""The built wheel is what people install."""

import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from environments.conftest import Environment

pytestmark = pytest.mark.environment


def test_the_wheel_holds_the_three_packages_and_nothing_beside_them(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"edge_tsad", "export", "firmware_bridge"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_installed_entry_point_answers(environment: Callable[[str], Environment]) -> None:
    script = environment("ort").python.parent / "edge-tsad"
    shown = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert "0.1.0" in shown.stdout
    shown = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    for command in ("train", "export", "info", "run", "alerts", "demo"):
        assert command in shown.stdout
