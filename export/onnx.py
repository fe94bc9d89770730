"""Detectors as ONNX files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from edge_tsad.detectors.base import Detector
from edge_tsad.errors import ExportError
from edge_tsad.runtime.backends.base import DeviceBackend
from edge_tsad.runtime.backends.checks import INPUTS
from export.base import Graph, converting, require
from export.onnx_quantize import (
    dynamic_int8,
    half_weights,
    int8_weights,
    large_products,
    nodes_of,
    static_int8,
)
from export.traps import onnx_trap
from export.windows import Windows

__all__ = ["OnnxExporter"]

OPSET = 18
IR_VERSION = 8
"""What came with opset 18; the exporter would write a newer one, which older runtimes refuse."""


class OnnxExporter:
    """ONNX, opset 18; float32 files take any batch, dynamically quantized ones a batch of 1."""

    format: ClassVar[str] = "onnx"
    runtimes: ClassVar[Mapping[str, str]] = {"onnxruntime": "1.17"}
    schemes: ClassVar[tuple[str, ...]] = ("none", "fp16", "dynamic", "static", "weights")
    kernels: ClassVar[tuple[type[DeviceBackend], ...]] = ()

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

    def layers(self, model: bytes) -> list[str]:
        """See `Exporter.layers`."""
        return [layer.shape for layer in large_products(prepared(model), exact=False)]

    def quantize(
        self,
        model: bytes,
        scheme: str,
        calibration: Windows,
        overrides: Mapping[int, str] | None = None,
    ) -> bytes:
        """See `Exporter.quantize`."""
        onnx = require("onnx")
        proto = prepared(model)
        layers = large_products(proto, exact=False)
        exact = nodes_of(large_products(proto, exact=True))
        schemes = [(overrides or {}).get(i, scheme) for i in range(len(layers))]

        def of(name: str) -> list[str]:
            return nodes_of(
                layer for layer, own in zip(layers, schemes, strict=True) if own == name
            )

        if scheme == "dynamic":
            proto = dynamic_int8(proto, of("dynamic"))
        elif scheme == "static":
            proto = static_int8(proto, of("static"), calibration)
        elif scheme not in ("none", "fp16", "weights"):
            raise ExportError(f"onnx: quantization {scheme!r} is not available for this format")
        half_weights(proto, of("fp16"))
        int8_weights(proto, of("weights"))
        if scheme != "none":
            int8_weights(proto, exact)
        share_initializers(proto)
        strip(proto)
        shorten(proto)
        proto.ir_version = IR_VERSION
        onnx.checker.check_model(proto)
        return bytes(proto.SerializeToString(deterministic=True))

    def trap(self, model: bytes) -> str:
        """See `Exporter.trap`."""
        return onnx_trap(model)

    def operators(self, model: bytes) -> dict[str, int]:
        """See `Exporter.operators`."""
        proto = require("onnx").load_model_from_string(model)
        return dict(sorted(Counter(node.op_type for node in proto.graph.node).items()))


def prepared(model: bytes) -> Any:
    """A file as a graph that quantizers take."""
    proto = require("onnx").load_model_from_string(model)
    strip(proto)
    prepare(proto)
    return proto


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


def prepare(proto: Any) -> None:
    """Name the nodes, by which quantizers go, and store transposed weights as they are used.

    The exporter leaves some weights behind a ``Transpose``, where no quantizer looks for them.
    """
    onnx = require("onnx")
    graph = proto.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in list(graph.node):
        if node.op_type == "Transpose" and node.input[0] in weights:
            values = onnx.numpy_helper.to_array(weights[node.input[0]])
            axes = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
            turned = np.ascontiguousarray(values.transpose(axes))
            graph.initializer.append(onnx.numpy_helper.from_array(turned, node.output[0]))
            graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    share_initializers(proto)
    for number, node in enumerate(graph.node):
        node.name = f"n{number}"


def shorten(proto: Any) -> None:
    """Number values and nodes instead of naming them: a tenth of the file.

    Nodes need a name each: ONNX Runtime 1.21 derives names of nodes that it fuses from theirs, and
    refuses the model where two come out equal.
    """
    graph = proto.graph
    kept = {"", *(tensor.name for tensor in [*graph.input, *graph.output])}
    short: dict[str, str] = {}

    def of(name: str) -> str:
        return name if name in kept else short.setdefault(name, f"v{len(short)}")

    for tensor in graph.initializer:
        tensor.name = of(tensor.name)
    for number, node in enumerate(graph.node):
        node.name = str(number)
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = of(name)
