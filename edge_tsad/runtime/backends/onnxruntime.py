"""ONNX Runtime: the peer of LiteRT, and what a 32-bit trixie gateway can have."""

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

__all__ = ["OnnxRuntimeBackend"]

ERRORS_ONLY = 3


class OnnxRuntimeBackend:
    """An ``.onnx`` model on ONNX Runtime's CPU provider, up to ``max_batch`` windows at a time.

    Args:
        model: the bytes of the file.
        threads: threads one inference may use.
        shape: ``(T, C)`` that the file must have; None takes what it has.

    Raises:
        BackendError: the package is missing, the file is not an ONNX model, is damaged, needs an
            operator that this runtime has not, or has other inputs, outputs or shapes.
    """

    name: ClassVar[str] = "onnxruntime"
    package: ClassVar[str] = "onnxruntime"
    distribution: ClassVar[str] = "onnxruntime"
    extra: ClassVar[str] = "ort"
    formats: ClassVar[tuple[str, ...]] = ("onnx",)
    max_batch = 64

    def __init__(
        self, model: bytes, *, threads: int = 1, shape: tuple[int, int] | None = None
    ) -> None:
        self._session = self._open(model, threads)
        inputs = {tensor.name: tensor for tensor in self._session.get_inputs()}
        outputs = {tensor.name: tensor for tensor in self._session.get_outputs()}
        check_names(self.name, inputs, outputs)
        tensors = {**inputs, **outputs}
        for name, tensor in tensors.items():
            if tensor.type != "tensor(float)":
                raise BackendError(f"{self.name}: the model's {name} is not float32")
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        self.window, self.channels = check_shape(self.name, shapes, shape)
        if isinstance(inputs[INPUTS[0]].shape[0], int):
            self.max_batch = int(inputs[INPUTS[0]].shape[0])
        self._outputs = list(outputs)

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
            windows: f32[B, T, C], B ≤ ``max_batch``, engineering units.
            observed: f32[B, T, C], 1 where measured, 0 where missing.

        Raises:
            BackendError: the arrays do not have the model's T and C, or the runtime failed.
        """
        check_arrays(self.name, windows, observed, (self.window, self.channels))
        feeds = {
            INPUTS[0]: np.ascontiguousarray(windows, np.float32),
            INPUTS[1]: np.ascontiguousarray(observed, np.float32),
        }
        try:
            results = self._session.run(self._outputs, feeds)
        except Exception as error:  # its exceptions share no base class but this
            raise BackendError(
                f"{self.name} {self.version()}: inference failed ({first_line(error)})"
            ) from error
        return dict(zip(self._outputs, results, strict=True))

    @classmethod
    def _open(cls, model: bytes, threads: int) -> Any:
        if cls.version() is None:
            raise missing_package(cls.name, cls.extra)
        try:
            ort = importlib.import_module(cls.package)
        except ImportError as error:
            raise BackendError(
                f"{cls.name}: the package is installed but cannot be loaded"
                f" ({first_line(error)}); install it anew for this Python and processor"
            ) from error
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = ERRORS_ONLY
        # Idle threads that spin cost 30 % of a core at ten windows a second, without it 0.4 %.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base class but this
            raise BackendError(
                f"{cls.name} {cls.version()}: cannot open the model ({first_line(error)});"
                " it is not an ONNX file, is damaged, or needs a newer runtime"
            ) from error
