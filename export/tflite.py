"""Detectors as TFLite files, for LiteRT and tflite-runtime."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edge_tsad.detectors.base import Detector
from edge_tsad.errors import ExportError
from edge_tsad.runtime.backends.base import DeviceBackend
from edge_tsad.runtime.backends.checks import INPUTS
from export.base import Graph, converting, require
from export.flatbuffer import packed
from export.kernels import OwnKernels
from export.quantize import LEAST_WEIGHTS, layer_shape, on_int8_grid
from export.traps import tflite_trap
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
    kernels: ClassVar[tuple[type[DeviceBackend], ...]] = (OwnKernels,)

    def convert(self, detector: Detector) -> bytes:
        """See `Exporter.convert`."""
        graph = Graph(detector).eval()
        with converting("tflite"):
            converter = require("litert_torch")
            edge = converter.convert(graph, sample_kwargs=graph.sample(1))
            return bytes(edge.model_content())

    def layers(self, model: bytes) -> list[str]:
        """See `Exporter.layers`."""
        return [layer.shape for layer in large_layers(number(model)) if not layer.exact]

    def quantize(
        self,
        model: bytes,
        scheme: str,
        calibration: Windows,
        overrides: Mapping[int, str] | None = None,
    ) -> bytes:
        """See `Exporter.quantize`."""
        if scheme == "none":
            return strip(model)
        if scheme not in RECIPES:
            raise ExportError(f"tflite: quantization {scheme!r} is not available for this format")
        return strip(quantized(number(model), scheme, calibration, overrides or {}))

    def trap(self, model: bytes) -> str:
        """See `Exporter.trap`."""
        return tflite_trap(model)

    def operators(self, model: bytes) -> dict[str, int]:
        """See `Exporter.operators`."""
        tools, tree = _read(model)
        names = {code: name for name, code in vars(tools.BuiltinOperator).items()}
        used = [graph.operators for graph in tree.subgraphs]
        codes = [tree.operatorCodes[one.opcodeIndex].builtinCode for part in used for one in part]
        return dict(sorted(Counter(names[code] for code in codes).items()))


def quantized(
    model: bytes, scheme: str, calibration: Windows, overrides: Mapping[int, str]
) -> bytes:
    """Large fully connected layers by the recipe of ``scheme``, or that of ``overrides``.

    Ranges, where ``scheme`` needs them, are the least and the greatest value met, not the moving
    average that the quantizer would take: it clips the spikes that matter.
    """
    quantizer = require("ai_edge_quantizer.quantizer")
    types = require("ai_edge_quantizer.qtyping")
    with converting("tflite quantization"):
        task = quantizer.Quantizer(model)
        activations = types.TensorQuantizationConfig(num_bits=8, symmetric=False)
        for name, outputs in _parts(large_layers(model), scheme, overrides).items():
            how = RECIPES[name]
            task.update_quantization_recipe(
                regex=f"^({'|'.join(outputs)});?$",
                operation_name=types.TFLOperationName.FULLY_CONNECTED,
                algorithm_key=how.algorithm,
                op_config=types.OpQuantizationConfig(
                    activation_tensor_config=activations if how.static else None,
                    weight_tensor_config=types.TensorQuantizationConfig(
                        num_bits=how.weight_bits,
                        granularity=types.QuantGranularity(how.granularity),
                        dtype=types.TensorDataType(how.dtype),
                    ),
                    compute_precision=types.ComputePrecision(how.compute),
                    explicit_dequantize=how.compute == "FLOAT",
                ),
            )
        ranges = _ranges(model, task, calibration) if RECIPES[scheme].static else None
        return bytes(task.quantize(ranges, enable_progress_report=False).quantized_model)


@dataclass(frozen=True, slots=True)
class Layer:
    """``outputs``: of each time it is used, by name; ``exact``: int8 holds its weights."""

    shape: str
    outputs: list[str]
    exact: bool


def large_layers(model: bytes) -> list[Layer]:
    """The fully connected layers with many weights, in their order.

    The quantizer's own least size leaves out weights but not their bias, and fails.
    """
    tools, tree = _read(model)
    (graph,) = tree.subgraphs
    found: dict[int, Layer] = {}
    for operator in graph.operators:
        code = tree.operatorCodes[operator.opcodeIndex].builtinCode
        place = int(operator.inputs[1]) if len(operator.inputs) > 1 else -1
        if code != tools.BuiltinOperator.FULLY_CONNECTED or place < 0:
            continue
        tensor = graph.tensors[place]
        if math.prod(tensor.shape) < LEAST_WEIGHTS:
            continue
        content = tree.buffers[tensor.buffer].data
        if place not in found:
            weights = np.frombuffer(bytes(content), np.float32).reshape(tensor.shape)
            shape = layer_shape(weights.shape[1], weights.shape[0])
            found[place] = Layer(shape, [], on_int8_grid(weights, 0))
        found[place].outputs.append(graph.tensors[operator.outputs[0]].name.decode())
    return list(found.values())


def _parts(layers: list[Layer], scheme: str, overrides: Mapping[int, str]) -> dict[str, list[str]]:
    """Names of recipes, with the outputs of the layers that each is for."""
    parts: dict[str, list[str]] = {}
    for position, layer in enumerate(layer for layer in layers if not layer.exact):
        parts.setdefault(overrides.get(position, scheme), []).extend(layer.outputs)
    # These lose nothing as int8 weights; see `on_int8_grid`.
    for layer in layers:
        if layer.exact:
            parts.setdefault("weights", []).extend(layer.outputs)
    return parts


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
        _, tree = _read(model)
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
        return packed(tree)


def _drop_empty_buffers(tree: Any) -> None:
    """All tensors without content share the first buffer, which is empty by convention."""
    tensors = [tensor for graph in tree.subgraphs for tensor in graph.tensors]
    places = {0: 0}
    for tensor in tensors:
        content = tree.buffers[tensor.buffer].data
        old = 0 if content is None or not len(content) else int(tensor.buffer)
        tensor.buffer = places.setdefault(old, len(places))
    tree.buffers = [tree.buffers[old] for old in places]
