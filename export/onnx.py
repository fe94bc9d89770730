"""Detectors as ONNX files."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from edge_tsad.detectors.base import Detector
from edge_tsad.errors import ExportError
from edge_tsad.runtime.backends.checks import INPUTS
from export.base import Graph, converting, require
from export.quantize import LEAST_WEIGHTS
from export.windows import Windows

__all__ = ["OnnxExporter"]

PRODUCTS = ("MatMul", "Gemm")
OPSET = 18
IR_VERSION = 8
"""What came with opset 18; the exporter would write a newer one, which older runtimes refuse."""


class OnnxExporter:
    """ONNX, opset 18; float32 files take any batch, dynamically quantized ones a batch of 1."""

    format: ClassVar[str] = "onnx"
    runtimes: ClassVar[Mapping[str, str]] = {"onnxruntime": "1.17"}
    schemes: ClassVar[tuple[str, ...]] = ("none", "dynamic", "weights")

    def convert(self, detector: Detector) -> bytes:
        """See `Exporter.convert`."""
        require("onnxscript")
        graph = Graph(detector).eval()
        batch = torch.export.Dim("batch", min=1, max=4096)
        with converting("onnx"):
            program = torch.onnx.export(
                graph,
                (),
                # Two windows, because a batch of one would be taken for a constant.
                kwargs=graph.sample(2),
                input_names=list(INPUTS),
                output_names=graph.outputs,
                dynamic_shapes={name: {0: batch} for name in INPUTS},
                dynamo=True,
                external_data=False,
                opset_version=OPSET,
                verbose=False,
            )
            assert program is not None
            return bytes(program.model_proto.SerializeToString())

    def quantize(self, model: bytes, scheme: str, calibration: Windows) -> bytes:
        """See `Exporter.quantize`."""
        onnx = require("onnx")
        proto = onnx.load_model_from_string(model)
        strip(proto)
        if scheme == "dynamic":
            proto = dynamic_int8(proto)
        elif scheme == "weights":
            int8_weights(proto)
        elif scheme != "none":
            raise ExportError(f"onnx: quantization {scheme!r} is not available for this format")
        share_initializers(proto)
        strip(proto)
        proto.ir_version = IR_VERSION
        onnx.checker.check_model(proto)
        return bytes(proto.SerializeToString(deterministic=True))


def dynamic_int8(proto: Any) -> Any:
    """Weights of large matrix products as int8; activations are quantized while computed.

    Convolutions stay float: their weights are few and ``ConvInteger`` is slower than ``Conv``.

    The runtime takes the range of an activation over the whole batch, so a window's score would
    depend on the windows beside it. That is why the batch of such a file is fixed at 1.
    """
    quantization = require("onnxruntime.quantization")
    onnx = require("onnx")
    large = large_products(proto)
    if not large:
        return proto
    with tempfile.TemporaryDirectory() as folder, converting("onnx dynamic"):
        path = Path(folder) / "model.onnx"
        quantization.quantize_dynamic(
            proto,
            path,
            op_types_to_quantize=list(PRODUCTS),
            nodes_to_quantize=large,
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
        )
        quantized = onnx.load(str(path))
    for tensor in [*quantized.graph.input, *quantized.graph.output]:
        tensor.type.tensor_type.shape.dim[0].dim_value = 1
    return quantized


def int8_weights(proto: Any) -> None:
    """Store weights of large matrix products as int8; they compute in float32.

    Each output of a layer has its own scale: with one for the whole layer the error of scores was
    nearly twice as large.
    """
    onnx = require("onnx")
    graph = proto.graph
    large = set(large_products(proto))
    # The axis of a weight that counts the layer's outputs.
    axes = {
        name: 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
        for node in graph.node
        if node.name in large
        for name in node.input
    }
    for tensor in list(graph.initializer):
        if tensor.name not in axes or math.prod(tensor.dims) < LEAST_WEIGHTS:
            continue
        axis = axes[tensor.name]
        weights = onnx.numpy_helper.to_array(tensor)
        largest = np.abs(weights).max(axis=1 - axis, keepdims=True)
        scale = np.maximum(largest, 1e-30) / np.float32(127)
        name, stored, step = tensor.name, f"{tensor.name}.int8", f"{tensor.name}.scale"
        rounded = np.rint(weights / scale).astype(np.int8)
        graph.initializer.remove(tensor)
        graph.initializer.append(onnx.numpy_helper.from_array(rounded, stored))
        graph.initializer.append(onnx.numpy_helper.from_array(scale.ravel(), step))
        node = onnx.helper.make_node(
            "DequantizeLinear", [stored, step], [name], f"{name}.float", axis=axis
        )
        graph.node.insert(0, node)


def large_products(proto: Any) -> list[str]:
    """Names of the matrix products whose weights are worth quantizing."""
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in proto.graph.initializer}
    return [
        node.name
        for node in proto.graph.node
        if node.op_type in PRODUCTS
        and max(sizes.get(name, 0) for name in node.input) >= LEAST_WEIGHTS
    ]


def strip(proto: Any) -> None:
    """Remove what says where and from which lines the graph was made, and inferred shapes.

    The exporter leaves source paths and stack traces in every node; the quantizer refuses the
    shapes that it inferred.
    """
    graph = proto.graph
    proto.doc_string = graph.doc_string = ""
    del graph.value_info[:]
    for owner in (
        proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *proto.functions
    ):  # fmt: skip
        del owner.metadata_props[:]
        owner.doc_string = ""


def share_initializers(proto: Any) -> None:
    """Store equal weights once: a layer that is used twice is written twice by the exporter."""
    first: dict[tuple[Any, ...], str] = {}
    renamed: dict[str, str] = {}
    kept = []
    for tensor in proto.graph.initializer:
        key = (tensor.data_type, tuple(tensor.dims), tensor.raw_data)
        if tensor.raw_data and key in first:
            renamed[tensor.name] = first[key]
        else:
            first.setdefault(key, tensor.name)
            kept.append(tensor)
    for node in proto.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
