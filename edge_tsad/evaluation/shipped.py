"""This toolkit's detectors as they ship: the exported file, run by the device's code.

Trained by ``training.fit``, converted by ``export`` and held against the detector on windows of the
history, run by a device backend and scored by the gateway's ``StreamScorer``, with the threshold of
the model's tail. The rest of export's gate, alerts above all, would take longer than the fit and
says nothing new of a float32 file.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import time
from collections.abc import Mapping, Sequence

import numpy as np

from edge_tsad.errors import ConfigError
from edge_tsad.evaluation.candidates import Alarm, Candidate, Fitted
from edge_tsad.evaluation.peers import PEERS
from edge_tsad.evaluation.store import code_digest
from edge_tsad.registry import BACKENDS, DETECTORS
from edge_tsad.runtime.scorer import StreamScorer
from edge_tsad.training.series import Series
from edge_tsad.types import Cells, FloatArray, IndexArray

__all__ = ["DetectorStream", "ShippedDetector", "choose_candidates", "option_of"]

FORMAT, BACKEND = "onnx", "onnxruntime"
"""The file that is scored: fp32, converted in seconds; parity with the others is export's gate."""

_CODE = ("detectors", "training", "runtime", "types", "../export")
"""Source that decides a score or a threshold; results are kept for one state of it."""

_PACKAGES = ("torch", "onnx", "scikit-learn")
"""Packages that decide them as well, besides the backend's own."""


class ShippedDetector(Candidate):
    """A detector of the registry with its options."""

    def __init__(
        self, detector: str, options: Mapping[str, object] | None = None, *, processes: int = 1
    ) -> None:
        if detector not in DETECTORS:
            known = ", ".join([*DETECTORS, *PEERS])
            raise ConfigError(f"detector: {detector!r} is unknown; known are {known}")
        self._detector, self._options = detector, dict(sorted((options or {}).items()))
        self._processes = processes
        words = ",".join(f"{key}={value}" for key, value in self._options.items())
        self.name = f"{detector}[{words}]" if words else detector

    def settings(self) -> dict[str, object]:
        """Detector, options, backend with its version, and the state of the code."""
        return {
            "detector": self._detector,
            "options": self._options,
            "backend": f"{BACKEND} {BACKENDS[BACKEND].version()}",
            "code": code_digest(*_CODE),
            "packages": {package: importlib.metadata.version(package) for package in _PACKAGES},
        }

    def check(self) -> None:
        """See `Candidate.check`."""
        from edge_tsad.training.fit import check_options  # noqa: PLC0415 - it needs torch

        check_options(self._detector, self._options)

    def prepare(self) -> None:
        """Import torch and the exporter, which takes seconds."""
        for module in ("edge_tsad.training.fit", "export.float_file"):
            importlib.import_module(module)

    def fit(self, history: Series, seed: int) -> Fitted:
        """Train, calibrate, convert, compare and open the file."""
        # Only here, so that whoever measures peers alone needs no torch.
        from edge_tsad.runtime.threshold import Budget, Threshold  # noqa: PLC0415
        from edge_tsad.training.fit import train  # noqa: PLC0415
        from export.float_file import float_file  # noqa: PLC0415

        start = time.perf_counter()
        model = train(
            history,
            self._detector,
            seed=seed,
            options=dict(self._options),
            processes=self._processes,
        )
        trained = time.perf_counter()
        file = float_file(model, FORMAT, seed)
        exported = time.perf_counter()
        backend = BACKENDS[BACKEND](file, threads=1)
        threshold = Threshold.from_tail(model.tail, Budget.usual(model.timing))
        channels = len(model.channels)
        return Fitted(
            stream=lambda: DetectorStream(StreamScorer(model.timing, channels, backend)),
            window=model.timing.window,
            delay=model.timing.delay,
            parameters=model.detector.parameter_count(),
            alarm=Alarm(
                threshold=threshold.value,
                median=threshold.median,
                policy=model.policy,
                state=threshold.state,
                rate=threshold.rate,
                interval=threshold.interval,
                counts=threshold.counts,
            ),
            facts={
                "train_s": round(trained - start, 3),
                "export_s": round(exported - trained, 3),
                "file_bytes": len(file),
                "period": model.timing.period,
                "suspicious": " ".join(model.facts["suspicious"]),
            },
        )


class DetectorStream:
    """Rows as cells; a row without any value never reaches a gateway's scorer either."""

    def __init__(self, scorer: StreamScorer) -> None:
        self._scorer = scorer

    def extend(self, index: IndexArray, values: FloatArray) -> tuple[IndexArray, FloatArray]:
        """See `Stream`."""
        observed = np.isfinite(values)
        seen = observed.any(axis=1)
        known = np.where(observed, values, np.float32(0))
        cells = Cells(index[seen], known[seen], observed[seen].astype(np.float32))
        scores = self._scorer.extend(cells)
        return scores.index, scores.score


def choose_candidates(
    names: Sequence[str],
    *,
    encoders: Sequence[str] = (),
    efforts: Sequence[float] = (),
    peers: bool = False,
    options: Sequence[str] = (),
    processes: int = 1,
) -> list[Candidate]:
    """Candidates by name, in their order.

    Args:
        names: detectors of the registry, and peers.
        encoders: each detector is measured with each of these; empty = its default.
        efforts: each is measured with each of these besides its default.
        peers: add all peers that are not named.
        options: ``KEY=VALUE`` for the detectors, the value as JSON or else as text.
        processes: that each detector may use while it is trained.

    Raises:
        ConfigError: a name is unknown, or an option has no ``=``.
    """
    shared = dict(option_of(option) for option in options)
    chosen: list[Candidate] = []
    for name in dict.fromkeys([*names, *(PEERS if peers else ())]):
        if name in PEERS:
            chosen.append(PEERS[name])
            continue
        variants = [shared | {"encoder": encoder} for encoder in encoders] or [shared]
        variants += [one | {"effort": effort} for effort in efforts for one in variants]
        chosen += [ShippedDetector(name, variant, processes=processes) for variant in variants]
    if not chosen:
        raise ConfigError("detector: none is named; give at least one")
    return list({candidate.name: candidate for candidate in chosen}.values())


def option_of(text: str) -> tuple[str, object]:
    """``KEY=VALUE`` in two, the value as JSON or else as text.

    Raises:
        ConfigError: there is no ``=``.
    """
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ConfigError(f"option: {text!r} is not KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
