"""Detectors as TFLite files, for LiteRT and tflite-runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from edge_tsad.detectors.base import Detector
from edge_tsad.errors import ExportError
from export.base import Graph, converting, require
from export.quantize import LEAST_WEIGHTS
from export.windows import Windows

__all__ = ["TFLiteExporter"]


class TFLiteExporter:
    """TFLite with one signature and a batch of 1."""

    format: ClassVar[str] = "tflite"
    runtimes: ClassVar[Mapping[str, str]] = {"litert": "1.3.0", "tflite-runtime": "2.14.0"}
    schemes: ClassVar[tuple[str, ...]] = ("none", "dynamic", "weights")

    def convert(self, detector: Detector) -> bytes:
        """See `Exporter.convert`."""
        graph = Graph(detector).eval()
        with converting("tflite"):
            converter = require("litert_torch")
            edge = converter.convert(graph, sample_kwargs=graph.sample(1))
            return bytes(edge.model_content())

    def quantize(self, model: bytes, scheme: str, calibration: Windows) -> bytes:
        """See `Exporter.quantize`."""
        if scheme == "dynamic":
            model = int8(model, integer=True)
        elif scheme == "weights":
            model = int8(model, integer=False)
        elif scheme != "none":
            raise ExportError(f"tflite: quantization {scheme!r} is not available for this format")
        return strip(model)


def int8(model: bytes, *, integer: bool) -> bytes:
    """Weights of large fully connected layers as int8; ``integer``: they compute in int8 as well.

    Their activations are then quantized while computed; without it weights become float32 again.

    One scale per tensor: with one per channel tflite-runtime 2.14 computes something else and says
    nothing. Convolutions stay float: they are depthwise and hold few weights.
    """
    with converting("tflite int8"):
        quantizer = require("ai_edge_quantizer.quantizer")
        types = require("ai_edge_quantizer.qtyping")
        task = quantizer.Quantizer(model)
        task.update_quantization_recipe(
            regex=".*",
            operation_name=types.TFLOperationName.FULLY_CONNECTED,
            op_config=types.OpQuantizationConfig(
                weight_tensor_config=types.TensorQuantizationConfig(
                    num_bits=8,
                    granularity=(
                        types.QuantGranularity.TENSORWISE
                        if integer
                        else types.QuantGranularity.CHANNELWISE
                    ),
                ),
                compute_precision=(
                    types.ComputePrecision.INTEGER if integer else types.ComputePrecision.FLOAT
                ),
                explicit_dequantize=not integer,
                min_weight_elements=LEAST_WEIGHTS,
            ),
        )
        return bytes(task.quantize(enable_progress_report=False).quantized_model)


def strip(model: bytes) -> bytes:
    """Number the tensors instead of naming them after Python modules: a fifth of a small file."""
    with converting("tflite"):
        flatbuffer: Any = require("ai_edge_litert.tools.flatbuffer_utils")
        tree = flatbuffer.read_model_from_bytearray(bytearray(model))
        tree.description = b""
        for subgraph in tree.subgraphs:
            for operator in subgraph.operators:
                # tflite-runtime would else take symmetric ranges, LiteRT does not: their scores
                # then differ by more than either differs from the detector.
                if hasattr(operator.builtinOptions, "asymmetricQuantizeInputs"):
                    operator.builtinOptions.asymmetricQuantizeInputs = True
            for number, tensor in enumerate(subgraph.tensors):
                tensor.name = str(number).encode()
        return bytes(flatbuffer.convert_object_to_bytearray(tree))
