"""Replays a bundle on whatever machine and Python this runs, and writes down what came out.

``replay.py BUNDLE CELLS OUT``: each model file goes through each inference runtime that is here:
the golden windows, and a stream of cells (``index``, ``values``, ``observed`` in an NPZ) through
scorer, threshold and alert policy as a gateway does it. Scores go to the NPZ ``OUT``, all else as
JSON to standard output. It needs numpy, one runtime and this project; it knows nothing of bounds.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge_tsad.bundle import Bundle, ModelFile, open_bundle, self_test
from edge_tsad.registry import BACKENDS
from edge_tsad.runtime.alerting import AlertPolicy
from edge_tsad.runtime.backends.base import Backend
from edge_tsad.runtime.backends.select import available
from edge_tsad.runtime.scorer import StreamScorer
from edge_tsad.runtime.threshold import Budget, Threshold
from edge_tsad.types import Cells, FloatArray


class Recorder:
    """A backend that keeps the scores it gives."""

    def __init__(self, backend: Backend) -> None:
        self.name = backend.name
        self.max_batch = 1  # as in a live stream
        self.scores: list[FloatArray] = []
        self._backend = backend

    def score(self, windows: FloatArray, observed: FloatArray) -> dict[str, FloatArray]:
        outputs = self._backend.score(windows, observed)
        self.scores.append(outputs["score"])
        return outputs


def replay(bundle: Bundle, file: ModelFile, name: str, cells: Cells) -> dict[str, Any]:
    """What ``file`` computes on the runtime ``name``."""
    manifest, began = bundle.manifest, time.monotonic()
    timing, channels = manifest.timing, len(manifest.channels)
    backend = BACKENDS[name](bundle.read(file.path), shape=(timing.window, channels))
    recorder = Recorder(backend)
    problem = self_test(bundle, file, recorder).problem
    budget = Budget.parse("1/7d" if timing.has_rate else "1/10000pt", timing)
    threshold = Threshold.from_tail(file.tail, budget)
    scores = StreamScorer(timing, channels, backend).extend(cells)
    policy = AlertPolicy(threshold.value, threshold.median, manifest.policy)
    return {
        "path": file.path,
        "scheme": file.scheme,
        "runtime": name,
        "version": BACKENDS[name].version(),
        "threshold": threshold.value,
        "median": threshold.median,
        "self_test": problem,
        "alerts": [[event.kind, event.onset, event.index] for event in policy.extend(scores)],
        "golden": np.concatenate(recorder.scores),
        "stream": scores.score,
        "seconds": round(time.monotonic() - began, 1),
    }


def main(bundle_path: str, cells_path: str, out: str) -> None:
    """Replay everything that can be replayed here."""
    bundle = open_bundle(Path(bundle_path))
    with np.load(cells_path) as stored:
        cells = Cells(stored["index"], stored["values"], stored["observed"])
    replays = [
        replay(bundle, file, name, cells)
        for name in available()
        for file in bundle.manifest.files
        if name in file.runtimes
    ]
    arrays = {
        f"{i}.{key}": result.pop(key)
        for i, result in enumerate(replays)
        for key in ("golden", "stream")
    }
    np.savez(out, **arrays)
    about = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "numpy": np.__version__,
        "replays": replays,
    }
    sys.stdout.write(json.dumps(about) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
