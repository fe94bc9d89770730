"""What every exporter is, and what all of them need."""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from typing import IO, Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from edge_tsad.detectors.base import Detector
from edge_tsad.errors import EdgeTsadError, ExportError
from edge_tsad.files import reason
from edge_tsad.runtime.backends.base import DeviceBackend
from edge_tsad.runtime.backends.checks import INPUTS, OUTPUTS, detail_names, first_line
from export.windows import Windows

__all__ = ["Exporter", "Graph", "converting", "require"]

STDERR = 2

logger = logging.getLogger(__name__)


class Exporter(Protocol):
    """One file format; found by its name in the registry.

    ``runtimes`` maps each backend that can run its files to the least version they need; the first
    is the one that files are verified with. ``schemes`` are the quantization schemes it has.
    ``kernels`` compute as other runtimes do: a file's scores must be nearly the same on them.
    """

    format: ClassVar[str]
    runtimes: ClassVar[Mapping[str, str]]
    schemes: ClassVar[tuple[str, ...]]
    kernels: ClassVar[tuple[type[DeviceBackend], ...]]

    def convert(self, detector: Detector) -> bytes:
        """The detector as a float32 file, with the names that ``quantize`` goes by.

        Raises:
            ExportError: the converter is missing or failed.
        """

    def layers(self, model: bytes) -> list[str]:
        """Shapes of the layers that integer schemes quantize, in their order from the input.

        Args:
            model: what ``convert`` gave, or a final file of the scheme ``none``.
        """

    def quantize(
        self,
        model: bytes,
        scheme: str,
        calibration: Windows,
        overrides: Mapping[int, str] | None = None,
    ) -> bytes:
        """The final file: a float32 file quantized by ``scheme``, without names and paths.

        Args:
            model: what ``convert`` gave, or a final file of the scheme ``none``.
            scheme: how to store and compute large layers.
            calibration: normal and distorted windows, for schemes that need ranges.
            overrides: by positions in ``layers``, what layers take instead of ``scheme``:
                ``weights`` or ``fp16``, both of which compute in float32.

        Raises:
            ExportError: the quantizer is missing or failed.
        """

    def trap(self, model: bytes) -> str:
        """Why one of ``runtimes`` would silently compute something else; empty if none would."""

    def operators(self, model: bytes) -> dict[str, int]:
        """How often each operator is in a file."""


class Graph(nn.Module):
    """A private copy of a detector on the CPU in ``eval`` mode, with outputs in a fixed order."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = copy.deepcopy(detector).cpu().eval().requires_grad_(False)
        self.shape = (detector.timing.window, detector.channels)
        outputs = self.detector(**self.sample(1))
        self.outputs = [*(name for name in OUTPUTS if name in outputs), *detail_names(outputs)]

    def forward(self, window: Tensor, observed: Tensor) -> dict[str, Tensor]:
        """The detector's outputs in the order of ``OUTPUTS``, then its details by name."""
        outputs = self.detector(window, observed)
        return {name: outputs[name] for name in self.outputs}

    def sample(self, batch: int) -> dict[str, Tensor]:
        """Inputs of the right shape, to trace the graph with."""
        generator = torch.Generator().manual_seed(0)
        window = torch.randn(batch, *self.shape, generator=generator)
        return {INPUTS[0]: window, INPUTS[1]: torch.ones_like(window)}


@contextlib.contextmanager
def converting(what: str) -> Iterator[None]:
    """Run a converter without its chatter; whatever it raises becomes an ExportError.

    Keep the body to calls of converters: an error of this program would be reported as theirs. What
    they wrote meanwhile is logged at debug level.
    """
    level = logging.root.manager.disable
    with _scratch(what) as noise:
        try:
            logging.disable(logging.ERROR)
            with warnings.catch_warnings(), _redirected(noise):
                warnings.simplefilter("ignore")
                yield
        except EdgeTsadError:
            raise
        except Exception as error:  # converters raise whatever they meet
            raise ExportError(
                f"{what}: the converter failed ({type(error).__name__}: {first_line(error)})"
            ) from error
        finally:
            logging.disable(level)
            noise.seek(0)
            logger.debug("%s: the converter wrote: %s", what, noise.read())


def _scratch(what: str) -> IO[str]:
    """A temporary file, gone when it is closed."""
    try:
        return tempfile.TemporaryFile("w+", errors="replace")
    except OSError as error:
        raise ExportError(
            f"{what}: there is no room for temporary files: {reason(error)}; free some, or name"
            " another folder in TMPDIR"
        ) from error


class _Muted(io.TextIOBase):
    """Writes to ``noise``, and to standard error once that is closed.

    Libraries that are imported meanwhile make log handlers, which keep the stream they find.
    """

    def __init__(self, noise: IO[str]) -> None:
        self._noise = noise

    def write(self, text: str) -> int:
        """See `io.TextIOBase`."""
        return (sys.stderr if self._noise.closed else self._noise).write(text)

    def flush(self) -> None:
        """See `io.TextIOBase`."""
        (sys.stderr if self._noise.closed else self._noise).flush()


@contextlib.contextmanager
def _redirected(noise: IO[str]) -> Iterator[None]:
    """Standard output and error into ``noise``; error also of compiled code, by its descriptor."""
    sys.stderr.flush()
    kept = os.dup(STDERR)
    try:
        os.dup2(noise.fileno(), STDERR)
        muted = _Muted(noise)
        with contextlib.redirect_stdout(muted), contextlib.redirect_stderr(muted):
            yield
    finally:
        # First, so that an error of a full disk can still be told.
        os.dup2(kept, STDERR)
        os.close(kept)
        noise.flush()


def require(module: str) -> Any:
    """Import a module of the converters.

    Raises:
        ExportError: it is not installed; the sentence says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ExportError(
            f"{module.partition('.')[0]} is not installed ({first_line(error)});"
            ' pip install "edge-tsad[export]"'
        ) from error
