"""Conversion and quantization: what is in a file, and what must not be."""

from __future__ import annotations

import getpass
import logging
import platform
import sys
from pathlib import Path

import numpy as np
import pytest
from oracles import toy_files

from edge_tsad.errors import ConfigError, ExportError
from edge_tsad.registry import BACKENDS, EXPORTERS
from export.base import Graph, converting, require
from export.quantize import SCHEMES, scheme_named
from export.verify import run

FORMATS = tuple(EXPORTERS)
BACKEND = {"onnx": "onnxruntime", "tflite": "litert"}


def outputs(data, kind, windows):
    return run(BACKENDS[BACKEND[kind]](data), windows)


@pytest.mark.parametrize("kind", FORMATS)
class TestEveryFormat:
    def test_has_every_scheme_and_a_backend(self, kind):
        exporter = EXPORTERS[kind]()
        assert exporter.format == kind
        assert set(exporter.schemes) == set(SCHEMES)
        for name in exporter.runtimes:
            assert kind in BACKENDS[name].formats

    def test_float_file_is_exact_on_masked_windows_too(self, kind):
        windows = toy_files.anomalous()
        truth = Graph(toy_files.detector())(*map(_tensor, (windows.window, windows.observed)))
        for name, values in outputs(toy_files.file(kind), kind, windows).items():
            assert np.allclose(values, truth[name].numpy(), rtol=1e-5, atol=1e-4)

    def test_quantized_file_is_smaller_and_near(self, kind):
        windows = toy_files.normal()
        small, whole = toy_files.file(kind, "dynamic"), toy_files.file(kind)
        assert len(small) < 0.7 * len(whole)
        near, exact = (outputs(data, kind, windows)["score"] for data in (small, whole))
        assert 1e-4 < np.abs(near - exact).max() < 0.05

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_says_nothing_about_where_it_was_made(self, kind, scheme):
        data = toy_files.file(kind, scheme)
        root = str(Path(__file__).parents[2])
        for secret in (
            root, str(Path.home()), sys.prefix, "site-packages", ".py", "Traceback", "oracles",
            "ToyDetector", "torch.nn", "stack_trace", platform.node(), getpass.getuser() + "@",
        ):  # fmt: skip
            assert secret.encode() not in data

    def test_equal_detectors_give_equal_files(self, kind):
        exporter = EXPORTERS[kind]()
        again = exporter.convert(toy_files.detector())
        for scheme in SCHEMES:
            data = exporter.quantize(again, scheme, toy_files.ranges())
            assert data == toy_files.file(kind, scheme)

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_a_file_can_be_quantized_from_the_final_float_file(self, kind, scheme):
        """A bundle holds nothing else."""
        exporter, windows = EXPORTERS[kind](), toy_files.ranges()
        again = exporter.quantize(toy_files.file(kind), scheme, windows)
        first, second = (
            outputs(data, kind, windows)["score"] for data in (again, toy_files.file(kind, scheme))
        )
        assert np.allclose(first, second, atol=1e-5)

    def test_names_its_large_layers_in_order(self, kind):
        exporter = EXPORTERS[kind]()
        for model in (toy_files.original(kind), toy_files.file(kind)):
            assert exporter.layers(model) == ["32→32", "32→32"]

    @pytest.mark.parametrize("scheme", ["dynamic", "static"])
    def test_a_layer_with_float16_weights_computes_in_float(self, kind, scheme):
        exporter, windows = EXPORTERS[kind](), toy_files.ranges()
        sizes, errors = [], []
        exact = outputs(toy_files.file(kind), kind, windows)["score"]
        for places in ([], [0], [1], [0, 1]):
            overrides = dict.fromkeys(places, "fp16")
            data = exporter.quantize(toy_files.original(kind), scheme, windows, overrides)
            sizes.append(len(data))
            errors.append(np.abs(outputs(data, kind, windows)["score"] - exact).mean())
        assert sizes[0] < sizes[1] < len(toy_files.file(kind))
        assert errors[3] < 0.1 * min(errors[:3]), "all with float16 weights"

    @pytest.mark.parametrize("scheme", ["dynamic", "static"])
    def test_a_layer_with_int8_weights_computes_in_float(self, kind, scheme):
        exporter, windows = EXPORTERS[kind](), toy_files.ranges()
        original = toy_files.original(kind)
        every = exporter.quantize(original, scheme, windows, {0: "weights", 1: "weights"})
        found = outputs(every, kind, windows)["score"]
        alone = outputs(toy_files.file(kind, "weights"), kind, windows)["score"]
        assert np.array_equal(found, alone)
        one = exporter.quantize(original, scheme, windows, {0: "weights"})
        assert len(one) < len(exporter.quantize(original, scheme, windows, {0: "fp16"}))

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_inputs_and_outputs_stay_float(self, kind, scheme):
        backend = BACKENDS[BACKEND[kind]](toy_files.file(kind, scheme))
        found = backend.score(*(np.ones((1, 64, 2), np.float32),) * 2)
        assert {values.dtype for values in found.values()} == {np.dtype(np.float32)}

    def test_leaves_the_detector_as_it_was(self, kind):
        assert all(p.requires_grad for p in toy_files.detector().parameters())
        assert toy_files.original(kind)
        assert all(p.requires_grad for p in toy_files.detector().parameters())

    def test_converters_say_nothing(self, kind, capfd, monkeypatch):
        exporter = EXPORTERS[kind]()
        data = exporter.quantize(toy_files.original(kind), "dynamic", toy_files.ranges())
        assert data
        assert capfd.readouterr() == ("", "")

    def test_an_unknown_scheme_is_refused(self, kind):
        with pytest.raises(ExportError, match="'int3' is not available"):
            EXPORTERS[kind]().quantize(toy_files.original(kind), "int3", toy_files.ranges())

    def test_a_missing_converter_is_named(self, kind, monkeypatch):
        missing = {"onnx": "onnxscript", "tflite": "litert_torch"}[kind]
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(ExportError, match=r'pip install "edge-tsad\[export\]"'):
            EXPORTERS[kind]().convert(toy_files.detector())


def _tensor(array):
    import torch

    return torch.from_numpy(array)


def test_onnx_takes_any_batch_but_a_dynamically_quantized_file_one():
    """There the runtime takes an activation's range over the batch: neighbours would matter."""
    kind = BACKENDS["onnxruntime"]
    assert kind(toy_files.file("onnx")).max_batch > 1
    assert kind(toy_files.file("onnx", "dynamic")).max_batch == 1


def test_large_fully_connected_layers_have_one_scale_per_tensor():
    """With one per channel tflite-runtime computes something else; small layers stay float."""
    from ai_edge_litert.tools import flatbuffer_utils as flatbuffers

    tree = flatbuffers.read_model_from_bytearray(bytearray(toy_files.file("tflite", "dynamic")))
    tensors = tree.subgraphs[0].tensors
    scales = [t.quantization.scale for t in tensors if t.type == 9]  # int8
    assert len(scales) == 2
    assert all(len(scale) == 1 for scale in scales)


def test_onnx_stores_equal_weights_once():
    import onnx

    graph = onnx.load_model_from_string(toy_files.file("onnx")).graph
    stored = [(t.data_type, tuple(t.dims), t.raw_data) for t in graph.initializer]
    assert len(stored) == len(set(stored))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_onnx_nodes_have_a_name_each(scheme):
    """ONNX Runtime 1.21 refuses a model in which nodes that it fuses come out with equal names."""
    import onnx

    names = [n.name for n in onnx.load_model_from_string(toy_files.file("onnx", scheme)).graph.node]
    assert all(names) and len(names) == len(set(names))


class TestConverting:
    def test_hides_what_is_written_and_keeps_the_cause(self, capfd):
        wanted = r"^onnx: .*\(ValueError: no such op\)"
        with pytest.raises(ExportError, match=wanted) as caught, converting("onnx"):
            print("chatter")  # noqa: T201
            raise ValueError("no such op\nand a long story")
        assert isinstance(caught.value.__cause__, ValueError)
        assert capfd.readouterr() == ("", "")

    def test_passes_on_errors_of_this_program(self):
        with pytest.raises(ConfigError, match="mine"), converting("onnx"):
            raise ConfigError("mine")

    def test_writing_works_again_afterwards(self, capfd):
        with converting("onnx"):
            pass
        print("back", file=sys.stderr)  # noqa: T201
        assert capfd.readouterr().err == "back\n"

    def test_a_log_handler_that_a_library_made_meanwhile_still_writes(self, capfd):
        with converting("onnx"):
            handler = logging.StreamHandler()
        handler.emit(logging.makeLogRecord({"msg": "later"}))
        assert capfd.readouterr().err == "later\n"


def test_a_missing_module_is_named_with_its_extra():
    with pytest.raises(
        ExportError, match=r'no_such_module is not installed .*"edge-tsad\[export\]"'
    ):
        require("no_such_module.inner")


def test_an_unknown_scheme_lists_the_known_ones():
    with pytest.raises(
        ExportError, match="'int3' is unknown; known are none, fp16, dynamic, static"
    ):
        scheme_named("int3")
