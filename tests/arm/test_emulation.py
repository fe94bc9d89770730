"""Building emulated systems: the cache is whole or empty, and failures are sentences."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from emulation import EmulationError, cached, emulated
from systems import RUNTIMES, SYSTEMS

from edge_tsad.registry import BACKENDS
from firmware_bridge.provision import apt
from firmware_bridge.provision.apt import AptMissingError

SCRIPTS = Path(__file__).parents[2] / "scripts" / "arm"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_TSAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_was_made_is_used_again_until_an_input_changes() -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("x")

    first = cached("thing", ["a"], make)
    assert cached("thing", ["a"], make) == first
    assert len(made) == 1
    assert cached("thing", ["b"], make) != first
    assert (first / "file").read_text() == "x"


def test_what_failed_leaves_nothing(cache: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise EmulationError("no network")

    with pytest.raises(EmulationError, match="no network"):
        cached("thing", [], make)
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_a_cache_that_cannot_be_written_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGE_TSAD_CACHE", str(tmp_path / "file"))
    with pytest.raises(EmulationError, match="EDGE_TSAD_CACHE"):
        cached("thing", [], lambda folder: None)


def test_unknown_systems_and_runtimes_are_named() -> None:
    with pytest.raises(EmulationError, match="bookworm-aarch64"):
        emulated("vax")
    with pytest.raises(EmulationError, match="only tflite-runtime"):
        emulated("bookworm-armv7l", ["litert"])


def test_a_machine_without_apt_is_told_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    with pytest.raises(AptMissingError, match="apt-get"):
        emulated("trixie-aarch64")


def test_every_runtime_is_a_backend_with_pins() -> None:
    assert set(RUNTIMES) == set(BACKENDS)
    for system in SYSTEMS.values():
        assert set(system.runtimes) <= set(RUNTIMES)
        assert system.cpu != "max", "it has instructions that no gateway has"
    for runtime in RUNTIMES.values():
        pins = (SCRIPTS.parents[1] / "constraints" / runtime.pins).read_text()
        assert f"{runtime.distribution}==" in pins


def test_no_address_is_written_down() -> None:
    for path in (*SCRIPTS.glob("*.py"), Path(apt.__file__)):
        assert "://" not in path.read_text(), path
