"""A detector that is still a torch module, behind the protocol of the device backends."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from edge_tsad.detectors.base import Detector
from edge_tsad.types import FloatArray

__all__ = ["TorchBackend"]

BATCH_NUMBERS = 1 << 17
"""Input numbers in a batch: enough to keep the cores busy, few enough to stay in their caches."""


class TorchBackend:
    """Scores windows with ``detector``, which is put into ``eval`` mode; for use while training."""

    name = "torch"

    def __init__(self, detector: Detector) -> None:
        self._detector = detector.eval()
        self.max_batch = max(1, BATCH_NUMBERS // (detector.timing.window * detector.channels))

    def score(
        self, windows: FloatArray, observed: FloatArray
    ) -> dict[str, npt.NDArray[np.float32]]:
        """The detector's outputs by name, as in ``edge_tsad.types``."""
        with torch.inference_mode():
            outputs = self._detector(
                # Copies: the scorer's windows are read-only views of its ring buffer.
                torch.from_numpy(np.array(windows, np.float32)),
                torch.from_numpy(np.array(observed, np.float32)),
            )
        return {name: tensor.numpy() for name, tensor in outputs.items()}
