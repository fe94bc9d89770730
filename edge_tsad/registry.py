"""What can be added by one file: detectors, exporters, backends and sources, found by name.

Each registry maps a name to ``"module:attribute"`` and imports it when it is asked for, so that
listing names needs none of the packages behind them and the gateway never imports torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from edge_tsad.errors import ConfigError

__all__ = ["BACKENDS", "DETECTORS", "EXPORTERS", "SOURCES", "Registry"]


class Registry(Mapping[str, Any]):
    """Names of one kind of thing; ``registry[name]`` imports and returns it.

    Raises:
        ConfigError: the name is unknown; the sentence lists the known ones.
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Any:
        if name not in self._entries:
            raise ConfigError(
                f"{self.kind}: {name!r} is unknown; known are {', '.join(self._entries)}"
            )
        module, _, attribute = self._entries[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


DETECTORS = Registry(
    "detector",
    {
        "coad": "edge_tsad.detectors.coad:CoAD",
        "cmdml": "edge_tsad.detectors.cmdml:CMDML",
    },
)

EXPORTERS = Registry(
    "format", {"onnx": "export.onnx:OnnxExporter", "tflite": "export.tflite:TFLiteExporter"}
)

BACKENDS = Registry(
    "backend",
    {
        "litert": "edge_tsad.runtime.backends.litert:LiteRTBackend",
        "tflite-runtime": "edge_tsad.runtime.backends.tflite_runtime:TFLiteRuntimeBackend",
        "onnxruntime": "edge_tsad.runtime.backends.onnxruntime:OnnxRuntimeBackend",
    },
)

SOURCES = Registry(
    "source",
    {
        "csv": "edge_tsad.runtime.sources.csv:CsvSource",
        "mqtt": "edge_tsad.runtime.sources.mqtt:MqttSource",
        "serial": "edge_tsad.runtime.sources.serial:SerialSource",
        "stdin": "edge_tsad.runtime.sources.stdin:StdinSource",
        "system": "edge_tsad.runtime.sources.system:SystemSource",
    },
)
