"""The gate: each way in which a file can be wrong without an error is refused."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import toy_files

from edge_tsad.errors import ExportError
from edge_tsad.training.torch_backend import TorchBackend
from export.quantize import SCHEMES
from export.verify import Reference, verify
from export.windows import Windows

FORMATS = tuple(toy_files.EXPORTERS)
MEDIAN, THRESHOLD = 0.05, 0.3


@pytest.fixture(scope="module")
def reference():
    return Reference.of(
        TorchBackend(toy_files.detector()),
        toy_files.detector().timing,
        toy_files.normal(),
        toy_files.anomalous(),
        median=MEDIAN,
        threshold=THRESHOLD,
    )


def check(data, kind, scheme, reference):
    label = f"toy.{kind}"
    return verify(label, data, toy_files.EXPORTERS[kind], SCHEMES[scheme], reference)


def edit_onnx(data, change):
    import onnx

    proto = onnx.load_model_from_string(data)
    change(proto.graph)
    return proto.SerializeToString()


def edit_weights(data, kind, change):
    """The file with ``change`` applied to its largest float tensor."""
    if kind == "onnx":
        from onnx import numpy_helper

        def on_graph(graph):
            tensor = max(graph.initializer, key=lambda t: len(t.raw_data))
            values = change(numpy_helper.to_array(tensor).copy())
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

        return edit_onnx(data, on_graph)
    from ai_edge_litert.tools import flatbuffer_utils as flatbuffers

    tree = flatbuffers.read_model_from_bytearray(bytearray(data))
    buffers = [b for b in tree.buffers if b.data is not None and len(b.data)]
    buffer = max(buffers, key=lambda b: len(b.data))
    values = np.frombuffer(bytes(buffer.data), np.float32).copy()
    buffer.data = np.frombuffer(change(values).tobytes(), np.uint8)
    return bytes(flatbuffers.convert_object_to_bytearray(tree))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_right_file_passes_and_its_facts_are_kept(kind, scheme, reference):
    checked = check(toy_files.file(kind, scheme), kind, scheme, reference)
    parity = checked.parity
    assert parity.windows == len(toy_files.normal()) + len(toy_files.anomalous())
    assert 0 <= parity.mean <= parity.p999 <= parity.max + 1e-9
    assert parity.changed == 0
    assert parity.latency_ms > 0
    assert parity.runtime_version
    assert checked.outputs["score"].shape == reference.outputs["score"].shape
    error = np.abs(checked.outputs["score"] - reference.outputs["score"])[: reference.normal]
    assert parity.max == pytest.approx(error.max() / (THRESHOLD - MEDIAN))


@pytest.mark.parametrize("kind", FORMATS)
class TestRefuses:
    def test_perturbed_weights(self, kind, reference):
        data = edit_weights(toy_files.file(kind), kind, lambda weights: weights * 1.02)
        with pytest.raises(ExportError, match=r"toy\.\w+: refused, its .* where 0\.001 is allowed"):
            check(data, kind, "none", reference)

    def test_a_quantized_file_that_is_too_far(self, kind, reference):
        data = edit_weights(toy_files.file(kind), kind, lambda weights: weights * 1.5)
        with pytest.raises(ExportError, match=r"99\.9th percentile of normal .* where 0\.1 is"):
            check(data, kind, "dynamic", reference)

    def test_ranges_that_end_where_normal_operation_did(self, kind, reference):
        exporter = toy_files.EXPORTERS[kind]
        data = exporter.quantize(toy_files.original(kind), "static", toy_files.normal())
        with pytest.raises(ExportError, match=r"distorted windows differ by .* where 25\.0% is"):
            check(data, kind, "static", reference)

    def test_numbers_that_are_not_finite(self, kind, reference):
        def break_one(weights):
            weights.flat[0] = np.nan
            return weights

        data = edit_weights(toy_files.file(kind), kind, break_one)
        with pytest.raises(ExportError, match="not finite"):
            check(data, kind, "dynamic", reference)

    def test_a_quantized_file_in_place_of_a_float_one(self, kind, reference):
        with pytest.raises(ExportError, match="try another format"):
            check(toy_files.file(kind, "dynamic"), kind, "none", reference)

    def test_a_file_that_does_not_open(self, kind, reference):
        with pytest.raises(ExportError, match="refused, it does not run"):
            check(b"\0\0\0\0TFL3", kind, "none", reference)


def test_a_replaced_operator_is_refused(reference):
    def replace(graph):
        next(node for node in graph.node if node.op_type == "Abs").op_type = "Relu"

    data = edit_onnx(toy_files.file("onnx"), replace)
    with pytest.raises(ExportError, match="its scores differ"):
        check(data, "onnx", "dynamic", reference)


def test_a_missing_output_is_refused(reference):
    def drop(graph):
        (found,) = (i for i, tensor in enumerate(graph.output) if tensor.name == "expected")
        del graph.output[found]

    data = edit_onnx(toy_files.file("onnx"), drop)
    with pytest.raises(ExportError, match="its outputs are channel_score, score"):
        check(data, "onnx", "none", reference)


def test_wrong_expected_values_are_refused_though_scores_agree(reference):
    def shift(graph):
        from onnx import helper, numpy_helper

        (last,) = (node for node in graph.node if "expected" in node.output)
        last.output[0] = "before"
        one = numpy_helper.from_array(np.float32(0.5), "half")
        graph.initializer.append(one)
        graph.node.append(helper.make_node("Add", ["before", "half"], ["expected"]))

    data = edit_onnx(toy_files.file("onnx"), shift)
    with pytest.raises(ExportError, match="its expected values differ"):
        check(data, "onnx", "none", reference)


def test_scores_that_saturate_where_alerts_are_decided_are_refused(reference):
    """A ceiling between normal scores and the threshold leaves normal windows as they are."""

    def cap(graph):
        from onnx import helper, numpy_helper

        (last,) = (node for node in graph.node if "score" in node.output)
        last.output[0] = "uncapped"
        graph.initializer.append(numpy_helper.from_array(np.float32(0.24), "most"))
        graph.node.append(helper.make_node("Min", ["uncapped", "most"], ["score"]))

    data = edit_onnx(toy_files.file("onnx"), cap)
    with pytest.raises(ExportError, match=r"of 80 windows are decided otherwise"):
        check(data, "onnx", "dynamic", reference)


def test_nothing_to_compare_on_is_an_error():
    nothing = Windows(np.empty((0, 64, 2), np.float32), np.empty((0, 64, 2), np.float32))
    backend, timing = TorchBackend(toy_files.detector()), toy_files.detector().timing
    with pytest.raises(ExportError, match="no windows"):
        Reference.of(backend, timing, nothing, nothing, median=MEDIAN, threshold=THRESHOLD)
    with pytest.raises(ExportError, match="not above the median"):
        Reference.of(
            backend, timing, toy_files.normal(), toy_files.anomalous(), median=1, threshold=1
        )
