"""From a trained model to a bundle: what is in it, and that a refusal leaves nothing behind."""

from __future__ import annotations

import contextlib
import copy
import dataclasses

import numpy as np
import pytest
from oracles import toy_files

from edge_tsad.bundle import open_bundle, self_test
from edge_tsad.errors import ConfigError, ExportError
from edge_tsad.registry import BACKENDS
from edge_tsad.runtime.backends.select import available
from edge_tsad.runtime.threshold import Budget
from export.build import export_bundle, export_files, write_files
from export.float_file import float_file
from export.onnx import OnnxExporter
from export.tflite import TFLiteExporter

LABELS = {"toy-fp32.onnx", "toy-int8.onnx", "toy-fp32.tflite", "toy-int8.tflite"}


_convert_anew = OnnxExporter.convert


@pytest.fixture(scope="module")
def model():
    return toy_files.model()


@pytest.fixture(scope="module", autouse=True)
def converted_once():
    """The converters' own work is done once for all tests of files."""
    originals = {kind: toy_files.original(kind) for kind in toy_files.EXPORTERS}
    with pytest.MonkeyPatch.context() as patch:
        for kind in (OnnxExporter, TFLiteExporter):
            patch.setattr(kind, "convert", lambda self, detector: originals[self.format])
        yield


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    steps = []
    manifest = export_bundle(
        model,
        folder / "toy.tsad",
        seed=5,
        files_folder=folder / "files",
        progress=lambda what, done, total: steps.append((what, done, total)),
    )
    return folder, manifest, steps


class TestBundle:
    def test_opens_and_holds_what_was_exported(self, exported):
        folder, manifest, _ = exported
        bundle = open_bundle(folder / "toy.tsad")
        assert bundle.manifest == manifest
        assert {file.path for file in manifest.files} == {f"model/{name}" for name in LABELS}
        for file in manifest.files:
            name = file.path.removeprefix("model/")
            assert (folder / "files" / name).read_bytes() == bundle.read(file.path)
            assert file.parity["runtime"] == next(iter(file.runtimes))

    def test_passes_its_own_self_test_on_every_backend_here(self, exported):
        folder, manifest, _ = exported
        bundle = open_bundle(folder / "toy.tsad")
        ran = 0
        for file in manifest.files:
            for name in set(available()) & set(file.runtimes):
                backend = BACKENDS[name](bundle.read(file.path), shape=(64, 2))
                result = self_test(bundle, file, backend)
                assert result.passed, result.problem
                ran += 1
        assert ran >= 4

    def test_a_file_in_place_of_another_fails_the_self_test(self, exported):
        folder, manifest, _ = exported
        bundle = open_bundle(folder / "toy.tsad")
        exact = next(file for file in manifest.files if file.path.endswith("fp32.tflite"))
        backend = BACKENDS["litert"](toy_files.file("tflite", "dynamic"))
        assert not self_test(bundle, exact, backend).passed

    def test_each_file_has_a_tail_of_its_own(self, exported, model):
        _, manifest, _ = exported
        for file in manifest.files:
            median = file.tail.median
            if file.scheme == "none":
                assert median == pytest.approx(model.tail.median, rel=1e-3)
            else:
                assert median != model.tail.median
                assert median == pytest.approx(model.tail.median, rel=0.1)

    def test_the_card_is_text_without_data(self, exported):
        folder, manifest, _ = exported
        card = open_bundle(folder / "toy.tsad").read(manifest.card.path).decode()
        for words in ("pressure (bar), flow", "history: sines", "warnings: a <b>bold</b> warning"):
            assert words in card
        assert "loss" not in card
        for name in LABELS:
            assert name in card

    def test_says_how_far_it_is(self, exported):
        steps = exported[2]
        assert [done for _, done, _ in steps] == list(range(6))
        assert {total for _, _, total in steps} == {6}
        assert steps[0][0] == "converting to tflite"
        assert {what.removeprefix("verifying ") for what, _, _ in steps[1:3]} < LABELS


class TestFloatFile:
    def test_is_the_one_of_a_bundle(self, exported, model):
        folder = exported[0]
        assert float_file(model, "onnx", 5) == (folder / "files" / "toy-fp32.onnx").read_bytes()

    def test_of_another_model_is_refused(self, model, monkeypatch):
        other = copy.deepcopy(model.detector)
        other.points.weight.data *= 1.01
        wrong = _convert_anew(OnnxExporter(), other)
        monkeypatch.setattr(OnnxExporter, "convert", lambda self, detector: wrong)
        with pytest.raises(ExportError, match=r"^toy\.onnx: refused, its scores differ"):
            float_file(model, "onnx", 5)


class TestRefusal:
    @pytest.fixture
    def broken(self, monkeypatch):
        """An exporter whose quantized files compute something else, as converters may."""
        right = OnnxExporter.quantize

        def wrong(self, model, scheme, *rest):
            import onnx
            from onnx import numpy_helper

            data = right(self, model, scheme, *rest)
            if scheme == "none":
                return data
            proto = onnx.load_model_from_string(data)
            for tensor in proto.graph.initializer:
                if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2:
                    values = numpy_helper.to_array(tensor) * np.float32(3)
                    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            return proto.SerializeToString()

        monkeypatch.setattr(OnnxExporter, "quantize", wrong)

    def test_leaves_nothing_behind(self, broken, model, tmp_path):
        with pytest.raises(ExportError, match=r"^toy-int8\.onnx: refused, its scores differ"):
            export_bundle(model, tmp_path / "toy.tsad", seed=5, files_folder=tmp_path / "files")
        assert list(tmp_path.iterdir()) == []

    def test_leaves_what_was_there(self, broken, model, tmp_path):
        (tmp_path / "toy.tsad").write_bytes(b"older")
        with pytest.raises(ExportError):
            export_bundle(model, tmp_path / "toy.tsad", seed=5)
        assert (tmp_path / "toy.tsad").read_bytes() == b"older"

    def test_an_unwritable_place_is_said(self, model, tmp_path):
        with pytest.raises(ExportError, match="no-such-folder: is no folder"):
            export_bundle(
                model, tmp_path / "no-such-folder" / "toy.tsad", formats=["onnx"], schemes=["none"]
            )
        (tmp_path / "file").touch()
        made = export_files(model, formats=["onnx"], schemes=["none"])
        with pytest.raises(ExportError, match="cannot be made"):
            write_files(made, tmp_path / "file" / "folder", contextlib.ExitStack())

    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"formats": ["xml"]}, ConfigError, "format: 'xml' is unknown; known are onnx, tflite"),
            ({"schemes": ["int3"]}, ExportError, "quantization 'int3' is unknown"),
            ({"formats": []}, ExportError, "no format was asked for"),
            ({"schemes": []}, ExportError, "no quantization was asked for"),
        ],
    )
    def test_an_unfit_option_is_said(self, model, options, error, words):
        with pytest.raises(error, match=words):
            export_files(model, **options)

    def test_a_missing_runtime_is_said(self, model, monkeypatch):
        monkeypatch.setattr(BACKENDS["litert"], "version", classmethod(lambda cls: None))
        with pytest.raises(ExportError, match=r"edge-tsad\[litert\]"):
            export_files(model, formats=["tflite"], schemes=["none"])


def test_the_budget_sets_the_unit(model):
    options = {"formats": ["onnx"], "schemes": ["fp16"]}  # which never leaves a layer in float
    strict, loose = (
        export_files(model, budget=Budget.parse(text, model.timing), **options)[0].entry.parity
        for text in ("1/30d", "2/1h")
    )
    assert strict["p999"] < loose["p999"]


def test_a_detector_without_expected_has_no_such_output(model, tmp_path, monkeypatch):
    class Plain(type(model.detector)):
        def forward(self, window, observed):
            outputs = super().forward(window, observed)
            return {name: outputs[name] for name in ("score", "channel_score")}

    plain = Plain(model.detector.timing, 2)
    plain.load_state_dict(model.detector.state_dict())
    other = dataclasses.replace(model, detector=plain)
    monkeypatch.setattr(OnnxExporter, "convert", _convert_anew)
    manifest = export_bundle(other, tmp_path / "toy.tsad", formats=["onnx"], schemes=["none"])
    assert [tensor.name for tensor in manifest.outputs] == ["score", "channel_score"]
    assert manifest.files[0].parity["expected_max"] is None
