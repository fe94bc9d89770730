"""The inference runtimes behind one protocol, and the choice among them."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from oracles import toy_files
from oracles.toy_detector import sines

from edge_tsad.errors import BackendError, ConfigError
from edge_tsad.registry import BACKENDS
from edge_tsad.runtime.backends import checks
from edge_tsad.runtime.backends.litert import LiteRTBackend
from edge_tsad.runtime.backends.onnxruntime import OnnxRuntimeBackend
from edge_tsad.runtime.backends.select import available, open_file
from edge_tsad.runtime.backends.tflite_runtime import TFLiteRuntimeBackend
from edge_tsad.training.torch_backend import TorchBackend

SHAPE = (64, 2)
INSTALLED = [BACKENDS[name] for name in available()]
ids = {"ids": lambda kind: kind.name}


def model(kind, scheme="none"):
    return toy_files.file(kind.formats[0], scheme)


@pytest.mark.parametrize("kind", INSTALLED, **ids)
class TestEveryBackend:
    def test_agrees_with_torch(self, kind):
        windows = toy_files.normal(8)
        truth = TorchBackend(toy_files.detector()).score(windows.window, windows.observed)
        backend = kind(model(kind), shape=SHAPE)
        step = backend.max_batch
        for i in range(0, 8, step):
            rows = slice(i, i + step)
            outputs = backend.score(windows.window[rows], windows.observed[rows])
            assert set(outputs) == set(truth)
            for name, values in outputs.items():
                assert values.dtype == np.float32
                assert np.allclose(values, truth[name][rows], atol=1e-5)

    @pytest.mark.parametrize("scheme", toy_files.SCHEMES)
    def test_a_window_does_not_depend_on_its_batch(self, kind, scheme):
        backend = kind(model(kind, scheme))
        count = min(backend.max_batch, 4)
        windows = toy_files.normal(8)
        together = backend.score(windows.window[:count], windows.observed[:count])["score"]
        for row in range(count):
            one = slice(row, row + 1)
            alone = backend.score(windows.window[one], windows.observed[one])["score"]
            assert np.allclose(alone[0], together[row], atol=1e-6)

    def test_takes_read_only_overlapping_views(self, kind):
        series = sines(1, toy_files.detector().timing, 2, seed=5)[0]
        series = np.concatenate([series, series])
        views = sliding_window_view(series, 64, axis=0).transpose(0, 2, 1)[::32]
        backend = kind(model(kind))
        for i in range(len(views)):
            view = views[i : i + 1]
            ones = np.broadcast_to(np.float32(1), view.shape)
            copied = backend.score(view.copy(), ones.copy())["score"]
            assert np.array_equal(backend.score(view, ones)["score"], copied)

    def test_results_outlive_the_next_call(self, kind):
        backend = kind(model(kind))
        windows = toy_files.normal(8)
        first = backend.score(windows.window[:1], windows.observed[:1])["score"]
        kept = first.copy()
        backend.score(windows.window[1:2], windows.observed[1:2])
        assert np.array_equal(first, kept)

    def test_no_windows_give_no_scores(self, kind):
        backend = kind(model(kind))
        nothing = np.empty((0, *SHAPE), np.float32)
        assert backend.score(nothing, nothing)["score"].shape == (0, 64)

    @pytest.mark.parametrize("shape", [(64, 1), (56, 2)])
    def test_refuses_a_file_of_another_shape(self, kind, shape):
        with pytest.raises(BackendError, match=r"64 points of 2 channel\(s\), the bundle says"):
            kind(model(kind), shape=shape)

    def test_refuses_windows_of_another_shape(self, kind):
        backend = kind(model(kind))
        with pytest.raises(BackendError, match=r"do not fit the model's \[B, 64, 2\]"):
            backend.score(np.zeros((1, 64, 1), np.float32), np.zeros((1, 64, 1), np.float32))

    @pytest.mark.parametrize(
        "damage",
        [
            lambda data: b"",
            lambda data: b"no model at all",
            lambda data: data[: len(data) // 3],
            lambda data: data[:8] + b"\xff" * (len(data) - 8),
            lambda data: bytes(len(data)),
        ],
        ids=["empty", "text", "cut", "overwritten", "zeros"],
    )
    def test_refuses_a_damaged_file_in_a_sentence(self, kind, damage):
        with pytest.raises(BackendError) as caught:
            kind(damage(model(kind)))
        assert kind.name in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_package_that_is_missing_is_named(self, kind, monkeypatch):
        monkeypatch.setattr(kind, "version", classmethod(lambda cls: None))
        with pytest.raises(BackendError, match=rf'pip install "edge-tsad\[{kind.extra}\]"'):
            kind(model(kind))

    def test_a_package_that_cannot_be_loaded_is_named(self, kind, monkeypatch):
        module = kind.package if kind is OnnxRuntimeBackend else f"{kind.package}.interpreter"
        monkeypatch.setattr(kind, "version", classmethod(lambda cls: "1.0"))
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(BackendError, match="installed but cannot be loaded"):
            kind(model(kind))


def test_onnx_runtime_does_not_spin():
    options = OnnxRuntimeBackend(model(OnnxRuntimeBackend))._session.get_session_options()
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_tflite_runtime_is_refused_beside_numpy_2(monkeypatch):
    monkeypatch.setattr(TFLiteRuntimeBackend, "version", classmethod(lambda cls: "2.14.0"))
    monkeypatch.setattr(np, "__version__", "2.4.6")
    with pytest.raises(BackendError, match=r"needs numpy older than 2 and here is 2\.4\.6"):
        TFLiteRuntimeBackend(model(LiteRTBackend))
    assert "tflite_runtime" not in sys.modules
    monkeypatch.setattr(np, "__version__", "1.26.4")
    assert TFLiteRuntimeBackend.unfit() is None


def test_a_foreign_onnx_file_is_refused():
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1, 3, 8])
    node = helper.make_node("Relu", ["image"], ["answer"])
    graph = helper.make_graph([node], "foreign", [image], [answer])
    opset = helper.make_opsetid("", 18)
    data = helper.make_model(graph, ir_version=8, opset_imports=[opset]).SerializeToString()
    with pytest.raises(BackendError, match="inputs are image, not observed, window"):
        OnnxRuntimeBackend(data)


def test_a_foreign_tflite_file_is_refused():
    from ai_edge_litert.tools import flatbuffer_utils as flatbuffers

    tree = flatbuffers.read_model_from_bytearray(bytearray(model(LiteRTBackend)))
    tree.signatureDefs[0].outputs[0].name = b"answer"
    with pytest.raises(BackendError, match=r"outputs are .*answer"):
        LiteRTBackend(bytes(flatbuffers.convert_object_to_bytearray(tree)))


@dataclass
class Entry:
    path: str
    format: str
    runtimes: dict[str, str] = field(default_factory=dict)


MEANT = Entry("model/b.tflite", "tflite", {"litert": "2.0", "tflite-runtime": "2.14.0"})


def read(path):
    return toy_files.file(path.rpartition(".")[2])


class TestOpenFile:
    def test_opens_what_is_meant_for_a_runtime(self):
        assert open_file("litert", MEANT, read, shape=SHAPE).name == "litert"

    def test_a_runtime_that_is_missing_is_named(self, monkeypatch):
        monkeypatch.setattr(LiteRTBackend, "version", classmethod(lambda cls: None))
        with pytest.raises(BackendError, match=r"edge-tsad\[litert\]"):
            open_file("litert", MEANT, read)

    def test_an_unknown_runtime_is_said(self):
        with pytest.raises(ConfigError, match="backend: 'tensorrt' is unknown"):
            open_file("tensorrt", MEANT, read)

    def test_respects_the_least_version(self):
        newer = Entry("model/b.tflite", "tflite", {"litert": "99.1"})
        with pytest.raises(BackendError, match=r"needs version 99\.1 or newer and here is"):
            open_file("litert", newer, read)

    def test_respects_the_runtimes_a_file_is_meant_for(self):
        other = Entry("model/b.tflite", "tflite", {"tflite-runtime": "2.14.0"})
        with pytest.raises(BackendError, match="is not meant for it"):
            open_file("litert", other, read)


@pytest.mark.parametrize(
    ("version", "key"),
    [("2.14.0", (2, 14, 0)), ("1.21.0rc1", (1, 21, 0)), ("3", (3,)), ("unknown", ()), ("", ())],
)
def test_versions_compare_by_their_numbers(version, key):
    assert checks.version_key(version) == key


def test_a_package_under_another_distribution_name_has_a_version():
    assert checks.installed_version("numpy", "no-such-distribution") == np.__version__
    assert checks.installed_version("no_such_package", "no-such-distribution") is None
