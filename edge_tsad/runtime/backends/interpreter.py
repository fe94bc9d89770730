"""What LiteRT and tflite-runtime share: one ``Interpreter`` class under two package names.

The tensors are read and written by index and not through ``get_signature_runner()``: on
tflite-runtime 2.14 the signature runner does without XNNPACK and took 5.6 times as long, on LiteRT
both took the same. The signature is used once, to find the index of each named tensor.
"""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

import numpy as np

from edge_tsad.errors import BackendError
from edge_tsad.runtime.backends.checks import (
    INPUTS,
    check_arrays,
    check_names,
    check_shape,
    first_line,
    installed_version,
    missing_package,
)
from edge_tsad.types import FloatArray

__all__ = ["InterpreterBackend"]

FILE_IDENTIFIER = b"TFL3"


class InterpreterBackend:
    """A ``.tflite`` model, one window at a time (its batch is fixed at 1 by the converter).

    Args:
        model: the bytes of the file.
        threads: threads one inference may use.
        shape: ``(T, C)`` that the file must have; None takes what it has.

    Raises:
        BackendError: the package is missing or unfit, the file is not a TFLite model, is damaged,
            needs an operator that this runtime has not, or has other inputs, outputs or shapes.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    distribution: ClassVar[str]
    extra: ClassVar[str]
    formats: ClassVar[tuple[str, ...]] = ("tflite",)
    max_batch = 1

    def __init__(
        self, model: bytes, *, threads: int = 1, shape: tuple[int, int] | None = None
    ) -> None:
        interpreter_class = self._interpreter_class()
        # The runtimes map what they are given; bytes that are no model at all stop here.
        if model[4:8] != FILE_IDENTIFIER:
            raise BackendError(
                f"{self.name}: the model is not a TFLite file (no {FILE_IDENTIFIER.decode()} mark)"
                "; export it again or fetch it anew"
            )
        try:
            self._interpreter = interpreter_class(model_content=model, num_threads=threads)
            self._interpreter.allocate_tensors()
            inputs, outputs = _named_tensors(self._interpreter)
        except (ValueError, RuntimeError, SystemError) as error:
            raise BackendError(
                f"{self.name} {self.version()}: cannot open the model ({first_line(error)});"
                " it is damaged or needs a newer runtime"
            ) from error
        check_names(self.name, inputs, outputs)
        for name, details in {**inputs, **outputs}.items():
            if details["dtype"] is not np.float32:
                raise BackendError(f"{self.name}: the model's {name} is not float32")
        shapes = {name: _dimensions(details) for name, details in {**inputs, **outputs}.items()}
        self.window, self.channels = check_shape(self.name, shapes, shape)
        self._inputs = [inputs[name]["index"] for name in INPUTS]
        self._outputs = {name: details["index"] for name, details in outputs.items()}
        self._shapes = {name: shapes[name][1:] for name in outputs}

    @classmethod
    def version(cls) -> str | None:
        """The installed version; None where the package is not installed."""
        return installed_version(cls.package, cls.distribution)

    @classmethod
    def unfit(cls) -> str | None:
        """Why the installed package cannot be used here; None if it can be."""
        return None

    def score(self, windows: FloatArray, observed: FloatArray) -> dict[str, FloatArray]:
        """Outputs of each window: ``score`` f32[B, T], ``channel_score`` and ``expected``.

        Args:
            windows: f32[B, T, C], engineering units.
            observed: f32[B, T, C], 1 where measured, 0 where missing.

        Raises:
            BackendError: the arrays do not have the model's T and C, or the runtime failed.
        """
        check_arrays(self.name, windows, observed, (self.window, self.channels))
        batch = len(windows)
        results = {
            name: np.empty((batch, *shape), np.float32) for name, shape in self._shapes.items()
        }
        interpreter, (window_index, observed_index) = self._interpreter, self._inputs
        try:
            for i in range(batch):
                interpreter.set_tensor(window_index, windows[i : i + 1])
                interpreter.set_tensor(observed_index, observed[i : i + 1])
                interpreter.invoke()
                for name, index in self._outputs.items():
                    results[name][i] = interpreter.get_tensor(index)[0]
        except (ValueError, RuntimeError) as error:
            raise BackendError(
                f"{self.name} {self.version()}: inference failed ({first_line(error)})"
            ) from error
        return results

    @classmethod
    def _interpreter_class(cls) -> Any:
        if cls.version() is None:
            raise missing_package(cls.name, cls.extra)
        if reason := cls.unfit():
            raise BackendError(reason)
        try:
            return importlib.import_module(f"{cls.package}.interpreter").Interpreter
        except ImportError as error:
            raise BackendError(
                f"{cls.name}: the package is installed but cannot be loaded"
                f" ({first_line(error)}); install it anew for this Python and processor"
            ) from error


def _named_tensors(interpreter: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Details of the inputs and outputs by their names in the model's only signature."""
    # The runner must not outlive this function: while it does, invoke() refuses to run.
    runner = interpreter.get_signature_runner()
    return runner.get_input_details(), runner.get_output_details()


def _dimensions(details: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in details["shape"])
