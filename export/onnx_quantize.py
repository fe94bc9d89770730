"""Quantization of ONNX graphs; each function takes a stripped float32 graph.

Only matrix products with many weights are touched. Scaling, spectrum, sigmoids, residual and score
are other operators and stay float32, as do inputs and outputs.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge_tsad.runtime.backends.checks import INPUTS
from edge_tsad.types import FloatArray
from export.base import converting, require
from export.quantize import LEAST_WEIGHTS
from export.windows import Windows

__all__ = ["dynamic_int8", "half_weights", "int8_weights", "large_products", "static_int8"]

PRODUCTS = ("MatMul", "Gemm")


def dynamic_int8(proto: Any, large: list[str]) -> Any:
    """Weights of large matrix products as int8; activations are quantized while computed.

    Convolutions stay float: their weights are few and ``ConvInteger`` is slower than ``Conv``.

    The runtime takes the range of an activation over the whole batch, so a window's score would
    depend on the windows beside it. That is why the batch of such a file is fixed at 1.
    """
    quantization = require("onnxruntime.quantization")
    onnx = require("onnx")
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


def int8_weights(proto: Any, large: list[str]) -> None:
    """Store weights of large matrix products as int8; they compute in float32.

    Each output of a layer has its own scale: with one for the whole layer the error of scores was
    nearly twice as large.
    """
    onnx = require("onnx")
    graph = proto.graph
    # The axis of a weight that counts the layer's outputs.
    axes = {
        name: 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
        for node in graph.node
        if node.name in large
        for name in node.input
    }
    for tensor in _weights_of(proto, large):
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


def static_int8(proto: Any, large: list[str], calibration: Windows) -> Any:
    """Weights and inputs of large matrix products as int8, with ranges fixed by ``calibration``.

    The ranges are the least and the greatest value met, not an average that would clip the spikes
    that matter. Outputs of the products stay float32: as int8 they tie.
    """
    quantization = require("onnxruntime.quantization")
    onnx = require("onnx")
    if not large:
        return proto
    with tempfile.TemporaryDirectory() as folder, converting("onnx static"):
        path = Path(folder) / "model.onnx"
        quantization.quantize_static(
            proto,
            path,
            _reader(quantization, calibration),
            op_types_to_quantize=list(PRODUCTS),
            nodes_to_quantize=large,
            per_channel=True,
            # 7 bits: sums of 8-bit products overflow on processors without VNNI, silently.
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options={"OpTypesToExcludeOutputQuantization": list(PRODUCTS)},
        )
        return onnx.load(str(path))


def _reader(quantization: Any, calibration: Windows) -> Any:
    """The calibration windows as the quantizer wants to be handed them."""

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = self._all()

        def _all(self) -> Iterator[dict[str, FloatArray]]:
            for i in range(len(calibration)):
                pair = (calibration.window[i : i + 1], calibration.observed[i : i + 1])
                yield dict(zip(INPUTS, pair, strict=True))

        def get_next(self) -> dict[str, FloatArray] | None:
            return next(self._batches, None)

    return Reader()


def half_weights(proto: Any, large: list[str]) -> None:
    """Store weights of large matrix products as float16; they compute in float32.

    A weight beyond the range of float16 leaves its layer as it is.
    """
    onnx = require("onnx")
    graph = proto.graph
    for tensor in _weights_of(proto, large):
        weights = onnx.numpy_helper.to_array(tensor)
        if np.abs(weights).max() > np.finfo(np.float16).max:
            continue
        name, stored = tensor.name, f"{tensor.name}.half"
        graph.initializer.remove(tensor)
        graph.initializer.append(onnx.numpy_helper.from_array(weights.astype(np.float16), stored))
        node = onnx.helper.make_node(
            "Cast", [stored], [name], f"{name}.float", to=onnx.TensorProto.FLOAT
        )
        graph.node.insert(0, node)


def _weights_of(proto: Any, large: list[str]) -> list[Any]:
    """The initializers that make products large."""
    names = {name for node in proto.graph.node if node.name in large for name in node.input}
    return [
        tensor
        for tensor in proto.graph.initializer
        if tensor.name in names and math.prod(tensor.dims) >= LEAST_WEIGHTS
    ]


def large_products(proto: Any, floating: int = 0) -> list[str]:
    """Names of the matrix products whose weights are worth quantizing.

    Without those of the first ``floating`` such weights, but with the last one.
    """
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in proto.graph.initializer}
    found: dict[str, list[str]] = {}  # by weight: a layer may be used more than once
    for node in proto.graph.node:
        weights = [name for name in node.input if sizes.get(name, 0) >= LEAST_WEIGHTS]
        if node.op_type in PRODUCTS and weights:
            found.setdefault(weights[0], []).append(node.name)
    kept = list(found.values())[min(floating, max(len(found) - 1, 0)) :]
    return [name for part in kept for name in part]
