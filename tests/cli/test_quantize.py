"""``export`` and ``quantize`` say in a sentence what is wrong, and leave nothing behind."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from oracles import toy_files

from edge_tsad.cli import main
from edge_tsad.cli.file_table import HEADER, file_table
from edge_tsad.errors import ExportError
from edge_tsad.registry import DETECTORS
from export.base import converting


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "toy.safetensors"
    toy_files.model().save(path)
    return path


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy as a detector of the registry, converted once."""
    original = toy_files.original("onnx")
    found = type(DETECTORS).__getitem__
    monkeypatch.setattr(
        type(DETECTORS),
        "__getitem__",
        lambda self, name: ToyByName if name == "toy" else found(self, name),
    )
    exporter = type(toy_files.EXPORTERS["onnx"])
    monkeypatch.setattr(exporter, "convert", lambda self, detector: original)


class ToyByName:
    """Makes the toy that was saved."""

    @staticmethod
    def from_settings(settings: dict[str, int]) -> object:
        kind = toy_files.detector()
        return type(kind)(kind.timing, kind.channels)


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def refused(result: Result, words: str) -> None:
    assert result.exit_code == 2, result.output
    assert words in result.output
    assert "Traceback" not in result.output


def calibration(folder: Path, points: int = 2000, names: str = "pressure,flow") -> Path:
    path = folder / "may.csv"
    values = toy_files.held_out(2000).values[:points]
    times = np.arange(len(values))[:, None] + 1_750_000_000
    np.savetxt(
        path,
        np.hstack([times, values]),
        fmt=["%d", "%.6f", "%.6f"],
        delimiter=",",
        header=f"time,{names}",
        comments="",
    )
    return path


@pytest.mark.usefixtures("known")
class TestStory:
    def test_a_model_becomes_a_bundle_and_that_a_smaller_one(
        self, model: Path, tmp_path: Path
    ) -> None:
        done = run("export", model, "--format", "onnx", "--quantize", "none", "--out", tmp_path)
        assert done.exit_code == 0, done.output
        assert "alerts changed" in done.output
        assert "onnxruntime ≥ 1.17" in done.output
        old = tmp_path / "toy-1.0.0.tsad"
        data = calibration(tmp_path)
        done = run(
            *("quantize", old, "--calibration", data, "--format", "onnx"),
            *("--quantize", "fp16", "--out", tmp_path),
        )
        assert done.exit_code == 0, done.output
        assert (tmp_path / "toy-1.0.1.tsad").is_file()
        assert "without a signature" in done.output

    @pytest.mark.parametrize(
        ("args", "words"),
        [
            (["--format", "xml"], "format: 'xml' is unknown; known are onnx, tflite"),
            (["--quantize", "int3"], "quantization 'int3' is unknown; known are none, fp16"),
            (["--out", "no/such.tsad"], "the folder no does not exist; make it first"),
            (["--calibration", "no.csv"], "no.csv: cannot be read as CSV"),
            (["--budget", "often"], "is not like 1/7d"),
        ],
    )
    def test_wrong_options_are_said(
        self, model: Path, tmp_path: Path, args: list[str], words: str
    ) -> None:
        out = [] if "--out" in args else ["--out", tmp_path / "x.tsad"]
        refused(run("export", model, *args, *out), words)
        assert list(tmp_path.iterdir()) == []

    def test_data_that_do_not_suit_are_said(self, model: Path, tmp_path: Path) -> None:
        data = calibration(tmp_path, names="pressure,speed")
        out = tmp_path / "x.tsad"
        refused(run("export", model, "--calibration", data, "--out", out), "no channel 'flow'")
        data = calibration(tmp_path, points=90)
        refused(run("export", model, "--calibration", data, "--out", out), "at least 128")
        assert [path.name for path in tmp_path.iterdir()] == ["may.csv"]

    def test_a_missing_converter_is_said(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
        monkeypatch.setitem(sys.modules, "litert_torch", None)
        refused(
            run("export", model, "--format", "tflite", "--out", tmp_path / "x.tsad"),
            'pip install "edge-tsad[export]"',
        )
        assert list(tmp_path.iterdir()) == []

    def test_no_room_for_temporary_files_is_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        with pytest.raises(ExportError, match="no room for temporary files"), converting("x"):
            pass

    def test_several_models_need_a_folder_and_no_name(self, model: Path) -> None:
        refused(run("export", model, model, "--name", "a"), "--out is a folder")
        refused(run("export", model, model), "two models would become the same bundle")

    def test_a_file_in_the_folders_place_is_said(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "taken").touch()
        args = ["--format", "onnx", "--quantize", "none", "--files", tmp_path / "taken"]
        refused(run("export", model, *args, "--out", tmp_path / "x.tsad"), "taken is no folder")
        assert [path.name for path in tmp_path.iterdir()] == ["taken"]

    def test_what_is_read_is_never_written_over(self, model: Path, tmp_path: Path) -> None:
        before = model.read_bytes()
        refused(run("export", model, "--out", model), "is read by this command")
        assert model.read_bytes() == before
        data = calibration(tmp_path)
        refused(
            run("export", model, "--calibration", data, "--out", data), "is read by this command"
        )
        made = run("export", model, "--format", "onnx", "--quantize", "none", "--out", tmp_path)
        assert made.exit_code == 0, made.output
        bundle = tmp_path / "toy-1.0.0.tsad"
        for out in (bundle, data):
            said = run("quantize", bundle, "--calibration", data, "--out", out)
            refused(said, "is read by this command")
        refused(run("report", bundle, model, "--out", bundle), "is read by this command")

    @pytest.mark.parametrize(
        ("args", "words"),
        [
            (["--seed", "-1"], "--seed"),
            (["--counter", "-1"], "--counter"),
            (["--counter", "1", "--minimum-counter", "2"], "--counter: 1 is below"),
            (["--out", "/proc/x.tsad"], "/proc/x.tsad cannot be written"),
        ],
    )
    def test_what_could_only_fail_later_is_said_first(
        self, model: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], words: str
    ) -> None:
        monkeypatch.setattr("export.build.Bench", None)  # nothing of the work may begin
        refused(run("export", model, *args), words)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 kB of its own."""
    where = tmp_path / "disk"
    where.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(where)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("NO TMPFS: a full disk is not tried (needs root)")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


@pytest.mark.usefixtures("known")
class TestDisk:
    ARGS = ("--format", "onnx", "--quantize", "none,fp16")

    def test_a_full_disk_leaves_no_bundle_of_export(self, model: Path, disk: Path) -> None:
        refused(run("export", model, *self.ARGS, "--out", disk), "no space is left on the device")
        assert list(disk.iterdir()) == []

    def test_a_full_disk_leaves_no_files_of_export(
        self, model: Path, disk: Path, tmp_path: Path
    ) -> None:
        args = (*self.ARGS, "--files", disk / "files", "--out", tmp_path)
        refused(run("export", model, *args), "no space is left on the device")
        assert list(disk.iterdir()) == []
        assert [path.name for path in tmp_path.iterdir()] == ["disk"]

    def test_a_full_disk_for_the_bundle_brings_back_what_its_files_replaced(
        self, model: Path, disk: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "files").mkdir()
        old = tmp_path / "files" / "toy-fp32.onnx"
        old.write_bytes(b"older")
        args = (*self.ARGS, "--files", tmp_path / "files", "--out", disk)
        refused(run("export", model, *args), "no space is left on the device")
        assert old.read_bytes() == b"older"
        assert [path.name for path in (tmp_path / "files").iterdir()] == ["toy-fp32.onnx"]

    def test_a_full_disk_for_the_bundle_takes_its_files_away_too(
        self, model: Path, disk: Path, tmp_path: Path
    ) -> None:
        args = (*self.ARGS, "--files", tmp_path / "new" / "files", "--out", disk)
        refused(run("export", model, *args), "no space is left on the device")
        assert list(disk.iterdir()) == []
        assert [path.name for path in tmp_path.iterdir()] == ["disk"]

    def test_neither_a_full_nor_a_read_only_disk_leaves_anything_of_quantize(
        self, model: Path, disk: Path, tmp_path: Path
    ) -> None:
        made = run("export", model, *self.ARGS[:3], "none", "--out", tmp_path)
        assert made.exit_code == 0, made.output
        args = ("--calibration", calibration(tmp_path), *self.ARGS[:3], "fp16", "--out", disk)
        old = tmp_path / "toy-1.0.0.tsad"
        refused(run("quantize", old, *args), "no space is left on the device")
        assert list(disk.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        refused(run("quantize", old, *args), "read-only file system")
        refused(run("export", model, *self.ARGS, "--out", disk), "read-only file system")
        assert list(disk.iterdir()) == []


def test_quantize_without_data_is_refused(tmp_path: Path) -> None:
    result = run("quantize", tmp_path / "a.tsad")
    assert result.exit_code == 2
    assert "--calibration" in result.output


def test_a_bundle_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.tsad").write_bytes(b"no bundle")
    result = run("quantize", tmp_path / "a.tsad", "--calibration", calibration(tmp_path))
    refused(result, "a.tsad")


def test_the_table_has_a_cell_for_each_heading() -> None:
    assert file_table([]) == []
    assert len(HEADER) == 10
