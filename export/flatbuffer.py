"""Packing a TFLite model with equal vectors stored once, a fifth of all that is no weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from export.base import require

__all__ = ["packed"]

IDENTIFIER = b"TFL3"

ALIGNMENT = 16
"""Where contents of buffers begin: runtimes use them in place, and the schema promises it. The
tools themselves pack to multiples of 4."""


def packed(tree: Any) -> bytes:
    """A model, as a tree of objects, as a file.

    Shapes, places of tensors and scales are vectors of their own in a flatbuffer, and any number of
    tables may point to one.
    """
    for graph in tree.subgraphs:
        for tensor in graph.tensors:
            tensor.shape = _vector(tensor.shape)
        for operator in graph.operators:
            operator.inputs, operator.outputs = map(_vector, (operator.inputs, operator.outputs))
            if hasattr(operator.builtinOptions, "newShape"):
                operator.builtinOptions.newShape = _vector(operator.builtinOptions.newShape)
    builder = _builder()
    builder.Finish(tree.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _vector(numbers: Any) -> Any:
    """As an array: lists are packed number by number and never shared."""
    return None if numbers is None else np.array(numbers, np.int32)


def _builder() -> Any:
    base = require("flatbuffers").Builder

    class Builder(base):  # type: ignore[misc,valid-type]
        def __init__(self) -> None:
            super().__init__(1 << 16)
            self._stored: dict[tuple[str, bytes], int] = {}

        def CreateNumpyVector(self, x: npt.NDArray[np.generic]) -> int:  # noqa: N802
            if x.dtype == np.uint8:
                return self._content(x.tobytes())
            key = (x.dtype.str, x.tobytes())
            if key not in self._stored:
                self._stored[key] = int(super().CreateNumpyVector(x))
            return self._stored[key]

        def _content(self, data: bytes) -> int:
            """The content of a buffer, never shared."""
            self.StartVector(1, len(data), ALIGNMENT)
            self.head -= len(data)
            self.Bytes[self.head : self.head + len(data)] = data
            return int(self.EndVector())

    return Builder()
