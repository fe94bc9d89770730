"""Files that are right here and wrong on another runtime or processor are refused for their make.

The other known ways to break a file show in its scores; `test_gate` and `test_verify` have those.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from oracles import toy_files

from export import tflite
from export.gate import Gate
from export.quantize import SCHEMES
from export.subject import subject_of
from export.verify import RefusedError
from export.windows import Windows


@pytest.mark.parametrize("kind", list(toy_files.EXPORTERS))
@pytest.mark.parametrize("scheme", SCHEMES)
def test_exported_files_have_none(kind, scheme):
    exporter = toy_files.EXPORTERS[kind]
    assert exporter.trap(toy_files.file(kind, scheme)) == ""
    if scheme in {"dynamic", "static"}:
        original, ranges = toy_files.original(kind), toy_files.ranges()
        for overrides in ({0: "weights"}, {1: "weights"}, {0: "fp16"}, {1: "fp16"}):
            mixed = exporter.quantize(original, scheme, ranges, overrides)
            assert exporter.trap(mixed) == ""


def edited_tflite(scheme, change):
    from ai_edge_litert.tools import flatbuffer_utils as flatbuffers

    tree = flatbuffers.read_model_from_bytearray(bytearray(toy_files.file("tflite", scheme)))
    change(tree.subgraphs[0])
    return bytes(flatbuffers.convert_object_to_bytearray(tree))


def symmetric_inputs():
    """What the converter leaves: LiteRT takes it for asymmetric, tflite-runtime does not."""

    def change(graph):
        for operator in graph.operators:
            if hasattr(operator.builtinOptions, "asymmetricQuantizeInputs"):
                operator.builtinOptions.asymmetricQuantizeInputs = False

    return edited_tflite("dynamic", change)


def scales_per_channel(scheme):
    """What the quantizer recommends; segmentation faults and other scores on tflite-runtime."""
    with pytest.MonkeyPatch.context() as patch:
        recipe = dataclasses.replace(tflite.RECIPES[scheme], granularity="CHANNELWISE")
        patch.setitem(tflite.RECIPES, scheme, recipe)
        exporter = toy_files.EXPORTERS["tflite"]
        return exporter.quantize(toy_files.original("tflite"), scheme, toy_files.ranges())


def edited_onnx(scheme, change):
    import onnx

    proto = onnx.load_model_from_string(toy_files.file("onnx", scheme))
    change(proto.graph)
    return proto.SerializeToString()


def eight_bit_weights():
    """Twice the integers and half the scale: the same scores here."""
    from onnx import numpy_helper

    def change(graph):
        stored = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "DequantizeLinear" and node.input[0] in stored:
                weights, scale = (stored[name] for name in node.input[:2])
                for tensor, factor in ((weights, 2), (scale, 0.5)):
                    values = numpy_helper.to_array(tensor)
                    if values.ndim == 2 or tensor is scale:
                        doubled = (values * factor).clip(-127, 127).astype(values.dtype)
                        tensor.CopyFrom(numpy_helper.from_array(doubled, tensor.name))

    return edited_onnx("static", change)


def weights_behind_a_dequantize_linear():
    """Weights alone as int8, written as ONNX Runtime's own quantizer would."""
    import onnx

    def change(graph):
        stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        product = next(
            node
            for node in graph.node
            if node.op_type in {"MatMul", "Gemm"}
            and stored.get(node.input[1], np.zeros(0)).size > 999
        )
        weights = stored[product.input[1]]
        step = np.float32(np.abs(weights).max() / 127)
        for name, values in (("q", np.rint(weights / step).astype(np.int8)), ("step", step)):
            graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values), name))
        graph.node.insert(0, onnx.helper.make_node("DequantizeLinear", ["q", "step"], ["w"]))
        product.input[1] = "w"

    return edited_onnx("none", change)


def ranges_over_any_batch():
    def change(graph):
        for tensor in graph.input:
            tensor.type.tensor_type.shape.dim[0].dim_param = "batch"

    return edited_onnx("dynamic", change)


TRAPS = {
    "symmetric inputs": (symmetric_inputs, "tflite", "how its input is rounded"),
    "per channel, dynamic": (lambda: scales_per_channel("dynamic"), "tflite", "per channel"),
    "per channel, static": (lambda: scales_per_channel("static"), "tflite", "per channel"),
    "8-bit weights": (eight_bit_weights, "onnx", "overflow on processors without VNNI"),
    "half dequantized": (weights_behind_a_dequantize_linear, "onnx", "rounded silently"),
    "any batch": (ranges_over_any_batch, "onnx", "neighbours change a score"),
}


@pytest.mark.parametrize("name", TRAPS)
def test_is_seen(name):
    make, kind, words = TRAPS[name]
    assert words in toy_files.EXPORTERS[kind].trap(make())


class TestGate:
    @pytest.fixture(scope="class")
    def gate(self):
        return Gate.of(subject_of(toy_files.model(), 0), None, 0)

    def test_refuses_what_only_another_runtime_gets_wrong(self, gate):
        exporter = toy_files.EXPORTERS["tflite"]
        with pytest.raises(RefusedError, match=r"refused, .* how its input is rounded"):
            gate.check("toy.tflite", symmetric_inputs(), exporter, SCHEMES["dynamic"])

    @pytest.mark.parametrize("kind", list(toy_files.EXPORTERS))
    def test_refuses_ranges_that_clip_spikes(self, gate, kind):
        """What an average of least and greatest values would leave of them."""
        normal = toy_files.normal()
        mild = Windows(normal.window * np.float32(0.3), normal.observed)
        exporter = toy_files.EXPORTERS[kind]
        clipped = exporter.quantize(toy_files.original(kind), "static", mild)
        with pytest.raises(RefusedError, match="its scores differ"):
            gate.check(f"toy.{kind}", clipped, exporter, SCHEMES["static"])
