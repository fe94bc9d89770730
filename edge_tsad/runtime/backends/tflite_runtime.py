"""tflite-runtime, the predecessor of LiteRT: what a 32-bit or an older gateway can have."""

from __future__ import annotations

import numpy as np

from edge_tsad.runtime.backends.checks import version_key
from edge_tsad.runtime.backends.interpreter import InterpreterBackend

__all__ = ["TFLiteRuntimeBackend"]


class TFLiteRuntimeBackend(InterpreterBackend):
    """TFLite files on tflite-runtime; see `InterpreterBackend`."""

    name = "tflite-runtime"
    package = "tflite_runtime"
    distribution = "tflite-runtime"
    extra = "tflite"

    @classmethod
    def unfit(cls) -> str | None:
        """Why the installed package cannot be used here; None if it can be."""
        # Its compiled part speaks the binary interface of numpy 1: with numpy 2 it imports, then
        # dies with "_ARRAY_API not found" at the first Interpreter.
        if version_key(np.__version__) >= (2,):
            return (
                f"tflite-runtime needs numpy older than 2 and here is {np.__version__}; use an"
                ' environment of its own with pip install "edge-tsad[tflite]" "numpy<2", or LiteRT'
            )
        return None
