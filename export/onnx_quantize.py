"""Quantization of ONNX graphs; each function takes a stripped float32 graph.

Only matrix products with many weights are touched. Scaling, spectrum, sigmoids, residual and score
are other operators and stay float32, as do inputs and outputs.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_tsad.runtime.backends.checks import INPUTS
from edge_tsad.types import FloatArray
from export.base import converting, require
from export.quantize import LEAST_WEIGHTS, layer_shape, on_int8_grid
from export.windows import Windows

__all__ = [
    "Layer",
    "dynamic_int8",
    "half_weights",
    "int8_weights",
    "large_products",
    "nodes_of",
    "static_int8",
]

PRODUCTS = ("MatMul", "Gemm")


def dynamic_int8(proto: Any, large: list[str]) -> Any:
    """Weights of large matrix products as int8; activations are quantized while computed.

    Convolutions stay float: their weights are few and ``ConvInteger`` is slower than ``Conv``.

    The runtime takes the range of an activation over the whole batch, so a window's score would
    depend on the windows beside it. That is why the batch of such a file is fixed at 1.
    """
    quantization = require("onnxruntime.quantization")
    quantized = _quantized(proto, large, quantization.quantize_dynamic)
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
    for tensor, axis in _weights_of(proto, large):
        weights = onnx.numpy_helper.to_array(tensor)
        largest = np.abs(weights).max(axis=1 - axis, keepdims=True)
        scale = np.maximum(largest, 1e-30) / np.float32(127)
        name, stored, step = tensor.name, f"{tensor.name}.int8", f"{tensor.name}.scale"
        rounded = np.rint(weights / scale).astype(np.int8)
        graph.initializer.remove(tensor)
        graph.initializer.append(onnx.numpy_helper.from_array(rounded, stored))
        graph.initializer.append(onnx.numpy_helper.from_array(scale, step))
        # No DequantizeLinear: ONNX Runtime joins one with the product, and then silently rounds
        # the product's other input to int8 as well.
        cast = f"{name}.cast"
        nodes = (
            onnx.helper.make_node("Cast", [stored], [cast], cast, to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Mul", [cast, step], [name], f"{name}.float"),
        )
        for position, node in enumerate(nodes):
            graph.node.insert(position, node)


def static_int8(proto: Any, large: list[str], calibration: Windows) -> Any:
    """Weights and inputs of large matrix products as int8, with ranges fixed by ``calibration``.

    The ranges are the least and the greatest value met, not an average that would clip the spikes
    that matter. Outputs of the products stay float32: as int8 they tie.
    """
    quantization = require("onnxruntime.quantization")
    return _quantized(
        proto,
        large,
        quantization.quantize_static,
        calibration_data_reader=_reader(quantization, calibration),
        # 7 bits: sums of 8-bit products overflow on processors without VNNI, silently.
        reduce_range=True,
        activation_type=quantization.QuantType.QUInt8,
        calibrate_method=quantization.CalibrationMethod.MinMax,
        extra_options={"OpTypesToExcludeOutputQuantization": list(PRODUCTS)},
    )


def _quantized(proto: Any, large: list[str], quantize: Any, **options: Any) -> Any:
    """The products ``large`` with int8 weights, by a function of the runtime's quantizer."""
    if not large:
        return proto  # to the quantizer an empty list means every product
    with tempfile.TemporaryDirectory() as folder, converting("onnx quantization"):
        path = Path(folder) / "model.onnx"
        quantize(
            proto,
            path,
            op_types_to_quantize=list(PRODUCTS),
            nodes_to_quantize=large,
            per_channel=True,
            weight_type=require("onnxruntime.quantization").QuantType.QInt8,
            **options,
        )
        return require("onnx").load(str(path))


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
    for tensor, _ in _weights_of(proto, large):
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


@dataclass(frozen=True, slots=True)
class Layer:
    """A large weight: its shape, and the names of the products that it is used in."""

    shape: str
    nodes: list[str]


def large_products(proto: Any, *, exact: bool) -> list[Layer]:
    """Layers with many weights in their order; ``exact``: those on an int8 grid, or the others."""
    numpy_helper = require("onnx").numpy_helper
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    found: dict[str, Layer] = {}
    for node in proto.graph.node:
        for name, axis in _weight_inputs(node, weights):
            known = found.get(name)
            if known is not None:
                known.nodes.append(node.name)
            elif on_int8_grid(numpy_helper.to_array(weights[name]), axis) == exact:
                outputs, inputs = weights[name].dims[axis], weights[name].dims[1 - axis]
                found[name] = Layer(layer_shape(inputs, outputs), [node.name])
    return list(found.values())


def nodes_of(layers: Iterable[Layer]) -> list[str]:
    """Names of all products of ``layers``."""
    return [node for layer in layers for node in layer.nodes]


def _weights_of(proto: Any, large: list[str]) -> list[tuple[Any, int]]:
    """The weights that make products large, with the axis that counts the layer's outputs."""
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    nodes = [node for node in proto.graph.node if node.name in large]
    axes = {name: axis for node in nodes for name, axis in _weight_inputs(node, weights)}
    return [(weights[name], axis) for name, axis in axes.items()]


def _weight_inputs(node: Any, weights: dict[str, Any]) -> list[tuple[str, int]]:
    """Large weights that ``node`` multiplies by, with the axis that counts its outputs."""
    if node.op_type not in PRODUCTS:
        return []
    axis = 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return [
        (name, axis)
        for name in node.input
        if name in weights and math.prod(weights[name].dims) >= LEAST_WEIGHTS
    ]
