"""Detectors as TFLite files, for LiteRT and tflite-runtime."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from edge_tsad.detectors.base import Detector
from edge_tsad.errors import ExportError
from edge_tsad.runtime.backends.checks import INPUTS
from export.base import Graph, converting, require
from export.quantize import LEAST_WEIGHTS
from export.windows import Windows

__all__ = ["TFLiteExporter"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a scheme stores and computes a large layer, in the quantizer's own words."""

    compute: str
    granularity: str = "TENSORWISE"
    weight_bits: int = 8
    dtype: str = "INT"
    algorithm: str = "min_max_uniform_quantize"
    static: bool = False


RECIPES = {
    "fp16": Recipe("FLOAT", weight_bits=16, dtype="FLOAT", algorithm="float_casting"),
    # One scale per tensor where integers are computed with: with one per channel tflite-runtime
    # 2.14 computes something else and says nothing, or ends with a segmentation fault.
    "dynamic": Recipe("INTEGER"),
    "static": Recipe("INTEGER", static=True),
    "weights": Recipe("FLOAT", granularity="CHANNELWISE"),
}
"""Convolutions stay float in all of them: they are depthwise and hold few weights."""


class TFLiteExporter:
    """TFLite with one signature and a batch of 1."""

    format: ClassVar[str] = "tflite"
    runtimes: ClassVar[Mapping[str, str]] = {"litert": "1.3.0", "tflite-runtime": "2.14.0"}
    schemes: ClassVar[tuple[str, ...]] = ("none", "fp16", "dynamic", "static", "weights")

    def convert(self, detector: Detector) -> bytes:
        """See `Exporter.convert`."""
        graph = Graph(detector).eval()
        with converting("tflite"):
            converter = require("litert_torch")
            edge = converter.convert(graph, sample_kwargs=graph.sample(1))
            return bytes(edge.model_content())

    def quantize(self, model: bytes, scheme: str, calibration: Windows, floating: int = 0) -> bytes:
        """See `Exporter.quantize`."""
        if scheme == "none":
            return strip(model)
        if scheme not in RECIPES:
            raise ExportError(f"tflite: quantization {scheme!r} is not available for this format")
        return strip(quantized(number(model), RECIPES[scheme], calibration, floating))

    def operators(self, model: bytes) -> dict[str, int]:
        """See `Exporter.operators`."""
        tools, tree = _read(model)
        names = {code: name for name, code in vars(tools.BuiltinOperator).items()}
        used = [graph.operators for graph in tree.subgraphs]
        codes = [tree.operatorCodes[one.opcodeIndex].builtinCode for part in used for one in part]
        return dict(sorted(Counter(names[code] for code in codes).items()))


def quantized(model: bytes, recipe: Recipe, calibration: Windows, floating: int) -> bytes:
    """Large fully connected layers by ``recipe``, but for the first; all else stays float32.

    Ranges, where the recipe needs them, are the least and the greatest value met, not the moving
    average that the quantizer would take: it clips the spikes that matter.
    """
    quantizer = require("ai_edge_quantizer.quantizer")
    types = require("ai_edge_quantizer.qtyping")
    with converting("tflite quantization"):
        task = quantizer.Quantizer(model)
        weights = types.TensorQuantizationConfig(
            num_bits=recipe.weight_bits,
            granularity=types.QuantGranularity(recipe.granularity),
            dtype=types.TensorDataType(recipe.dtype),
        )
        activations = types.TensorQuantizationConfig(num_bits=8, symmetric=False)
        task.update_quantization_recipe(
            regex=large_layers(model, floating),
            operation_name=types.TFLOperationName.FULLY_CONNECTED,
            algorithm_key=recipe.algorithm,
            op_config=types.OpQuantizationConfig(
                activation_tensor_config=activations if recipe.static else None,
                weight_tensor_config=weights,
                compute_precision=types.ComputePrecision(recipe.compute),
                explicit_dequantize=recipe.compute == "FLOAT",
            ),
        )
        ranges = _ranges(model, task, calibration) if recipe.static else None
        return bytes(task.quantize(ranges, enable_progress_report=False).quantized_model)


def large_layers(model: bytes, floating: int) -> str:
    """A regular expression for the outputs of fully connected layers with many weights.

    Without those of the first ``floating`` such layers, but with the last one. The quantizer's own
    least size leaves out weights but not their bias, and fails.
    """
    tools, tree = _read(model)
    (graph,) = tree.subgraphs
    outputs: dict[int, list[str]] = {}  # by weight: a layer may be used more than once
    for operator in graph.operators:
        code = tree.operatorCodes[operator.opcodeIndex].builtinCode
        weight = int(operator.inputs[1]) if len(operator.inputs) > 1 else -1
        if code != tools.BuiltinOperator.FULLY_CONNECTED or weight < 0:
            continue
        if math.prod(graph.tensors[weight].shape) >= LEAST_WEIGHTS:
            output = graph.tensors[operator.outputs[0]].name.decode()
            outputs.setdefault(weight, []).append(output)
    kept = list(outputs.values())[min(floating, max(len(outputs) - 1, 0)) :]
    names = [name for part in kept for name in part]
    return f"^({'|'.join(names)});?$"


def _ranges(model: bytes, task: Any, calibration: Windows) -> Any:
    """Least and greatest value of each tensor over the calibration windows."""
    calibrator = require("ai_edge_quantizer.calibrator")
    manager = require("ai_edge_quantizer.recipe_manager").RecipeManager()
    manager.load_quantization_recipe(task.get_quantization_recipe())
    update = require("ai_edge_quantizer.utils.qsv_utils").min_max_update
    run = calibrator.Calibrator(model, num_threads=1, qsv_update_func=update)
    (signature,) = run.get_signature_list()
    pairs = zip(calibration.window[:, None], calibration.observed[:, None], strict=True)
    run.calibrate({signature: [dict(zip(INPUTS, pair, strict=True)) for pair in pairs]}, manager)
    return run.get_model_qsvs()


def _read(model: bytes) -> tuple[Any, Any]:
    """The tools for flatbuffers, and ``model`` as a tree of objects."""
    tools = require("ai_edge_litert.tools.flatbuffer_utils")
    return tools, tools.read_model_from_bytearray(bytearray(model))


def number(model: bytes) -> bytes:
    """The file with a number as the name of each tensor: the quantizer goes by names."""
    with converting("tflite"):
        tools, tree = _read(model)
        for graph in tree.subgraphs:
            for position, tensor in enumerate(graph.tensors):
                tensor.name = str(position).encode()
        return bytes(tools.convert_object_to_bytearray(tree))


def strip(model: bytes) -> bytes:
    """Without names, empty tables and buffers, and facts of the conversion: a third of the file."""
    with converting("tflite"):
        tools, tree = _read(model)
        tree.description, tree.metadata = b"", None
        for graph in tree.subgraphs:
            for operator in graph.operators:
                # tflite-runtime would else take symmetric ranges, LiteRT does not: their scores
                # then differ by more than either differs from the detector.
                if hasattr(operator.builtinOptions, "asymmetricQuantizeInputs"):
                    operator.builtinOptions.asymmetricQuantizeInputs = True
            for tensor in graph.tensors:
                tensor.name = None
                if tensor.quantization is not None and tensor.quantization.scale is None:
                    tensor.quantization = None
        _drop_empty_buffers(tree)
        return bytes(tools.convert_object_to_bytearray(tree))


def _drop_empty_buffers(tree: Any) -> None:
    """All tensors without content share the first buffer, which is empty by convention."""
    tensors = [tensor for graph in tree.subgraphs for tensor in graph.tensors]
    places = {0: 0}
    for tensor in tensors:
        content = tree.buffers[tensor.buffer].data
        old = 0 if content is None or not len(content) else int(tensor.buffer)
        tensor.buffer = places.setdefault(old, len(places))
    tree.buffers = [tree.buffers[old] for old in places]
