"""Windows that come again are run once: a stream of anomalies holds the same quiet windows often.

On a short history a third of the windows between anomalies have been seen before.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from edge_tsad.runtime.backends.base import Backend
from edge_tsad.types import FloatArray

__all__ = ["Repeats"]

MOST = 1024
"""Windows whose outputs are kept, those that were met last."""

Outputs = dict[str, FloatArray]


class Repeats:
    """``backend`` with its answers to the last ``MOST`` different windows."""

    def __init__(self, backend: Backend) -> None:
        self.name, self.max_batch = backend.name, backend.max_batch
        self._backend = backend
        self._known: dict[bytes, Outputs] = {}

    def score(self, windows: FloatArray, observed: FloatArray) -> Outputs:
        """See `Backend.score`."""
        keys = [_key(*pair) for pair in zip(windows, observed, strict=True)]
        rows = {key: row for row, key in enumerate(keys) if key not in self._known}
        if rows:
            chosen = list(rows.values())
            outputs = self._backend.score(windows[chosen], observed[chosen])
            for i, key in enumerate(rows):
                self._known[key] = {name: values[i].copy() for name, values in outputs.items()}
        answers = [self._met(key) for key in keys]
        for key in list(self._known)[:-MOST]:
            del self._known[key]
        return {name: np.stack([each[name] for each in answers]) for name in answers[0]}

    def _met(self, key: bytes) -> Outputs:
        """The answer to a window, which becomes the last to be forgotten."""
        outputs = self._known[key] = self._known.pop(key)
        return outputs


def _key(window: FloatArray, observed: FloatArray) -> bytes:
    return blake2b(window.tobytes() + observed.tobytes(), digest_size=16).digest()
