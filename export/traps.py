"""Constructions that one runtime or processor computes otherwise than the rest, without an error.

The gate runs a file here, on one runtime. What goes wrong only elsewhere has to be seen in the file
itself; each function gives the reason to refuse a file, or an empty text.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.base import require

__all__ = ["onnx_trap", "tflite_trap"]

FLOAT32, INT8 = 0, 9
"""Types of tensors in TFLite's schema."""

SEVEN_BITS = 64

PRODUCTS = ("MatMul", "Gemm")


def tflite_trap(model: bytes) -> str:
    """Why tflite-runtime 2.14 would compute something else than LiteRT."""
    tools = require("ai_edge_litert.tools.flatbuffer_utils")
    tree = tools.read_model_from_bytearray(bytearray(model))
    for graph in tree.subgraphs:
        for operator in graph.operators:
            code = tree.operatorCodes[operator.opcodeIndex].builtinCode
            if code != tools.BuiltinOperator.FULLY_CONNECTED:
                continue
            inputs, weights = (graph.tensors[place] for place in operator.inputs[:2])
            if weights.type != INT8:
                continue
            if len(weights.quantization.scale) > 1:
                return "an integer layer has one scale per channel, which tflite-runtime gets wrong"
            if inputs.type == FLOAT32 and not operator.builtinOptions.asymmetricQuantizeInputs:
                return "a layer leaves it open how its input is rounded, and runtimes differ in it"
    return ""


def onnx_trap(model: bytes) -> str:
    """Why another processor, batch or version of ONNX Runtime would compute something else."""
    onnx = require("onnx")
    graph = onnx.load_model_from_string(model).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == "DynamicQuantizeLinear" and not _batch_is_one(graph):
            return "ranges are taken over a batch of any size, so that neighbours change a score"
        if node.op_type not in PRODUCTS:
            continue
        makers = [made_by[name] for name in node.input[:2] if name in made_by]
        integer = [maker for maker in makers if maker.op_type == "DequantizeLinear"]
        if len(integer) == 1:
            return "one input of a product is dequantized, and the other would be rounded silently"
        for maker in integer:
            weights = stored.get(maker.input[0])
            if weights is not None and _largest(onnx, weights) > SEVEN_BITS:
                return "a product has 8-bit weights, whose sums overflow on processors without VNNI"
    return ""


def _batch_is_one(graph: Any) -> bool:
    return all(tensor.type.tensor_type.shape.dim[0].dim_value == 1 for tensor in graph.input)


def _largest(onnx: Any, tensor: Any) -> int:
    return int(np.abs(onnx.numpy_helper.to_array(tensor).astype(np.int32)).max())
