"""What the scorer asks of whatever computes a detector's forward pass."""

from __future__ import annotations

from typing import ClassVar, Protocol

from edge_tsad.types import FloatArray

__all__ = ["Backend", "DeviceBackend"]


class Backend(Protocol):
    """A detector that can be run: a model file in an inference runtime, or a net in training."""

    @property
    def name(self) -> str:
        """The name it is found by and reported under."""

    @property
    def max_batch(self) -> int:
        """Windows that one call of `score` may hold, at least 1."""

    def score(self, windows: FloatArray, observed: FloatArray) -> dict[str, FloatArray]:
        """Score ``B ≤ max_batch`` windows.

        Args:
            windows: f32[B, T, C], engineering units, missing points filled with the last value.
                Both arrays are read-only views into the stream's ring buffer, overlapping one
                another where B > 1: a runtime that wants a contiguous or writable array, or keeps
                it beyond the call, takes a copy.
            observed: f32[B, T, C], 1 where measured and 0 where missing.

        Returns:
            ``score`` f32[B, T] ≥ 0, ``channel_score`` f32[B, T, C] ≥ 0 and, where the detector has
            one, ``expected`` f32[B, T, C] in engineering units. The outputs of a window do not
            depend on the windows beside it.

        Raises:
            BackendError: the runtime failed, or the arrays do not fit the model.
        """


class DeviceBackend(Backend, Protocol):
    """A backend over an inference runtime: opened as ``cls(model, threads=1, shape=(T, C))``."""

    package: ClassVar[str]
    """Import name of the runtime."""

    extra: ClassVar[str]
    """The optional dependency of this program that installs it."""

    formats: ClassVar[tuple[str, ...]]
    """Formats of model files that it runs: ``onnx`` or ``tflite``."""

    def __init__(
        self, model: bytes, *, threads: int = 1, shape: tuple[int, int] | None = None
    ) -> None:
        """Open a model file; ``BackendError`` says why it cannot be."""

    @classmethod
    def version(cls) -> str | None:
        """The installed version of the runtime; None where it is not installed."""

    @classmethod
    def unfit(cls) -> str | None:
        """Why the installed runtime cannot be used here; None if it can be."""
