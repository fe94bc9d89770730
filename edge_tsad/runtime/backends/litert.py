"""LiteRT (``ai-edge-litert``), the first choice on a 64-bit gateway."""

from __future__ import annotations

from edge_tsad.runtime.backends.interpreter import InterpreterBackend

__all__ = ["LiteRTBackend"]


class LiteRTBackend(InterpreterBackend):
    """TFLite files on LiteRT; see `InterpreterBackend`."""

    name = "litert"
    package = "ai_edge_litert"
    distribution = "ai-edge-litert"
    extra = "litert"
