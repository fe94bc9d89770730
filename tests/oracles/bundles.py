"""A small bundle to damage, and archives that a bundle must not be."""

from __future__ import annotations

import dataclasses
import io
import zipfile

import numpy as np

from edge_tsad.bundle import (
    Bounds,
    DetectorInfo,
    Golden,
    GoldenWindows,
    Listed,
    Manifest,
    ModelFile,
    output_tensors,
)
from edge_tsad.bundle.container import pack
from edge_tsad.runtime.threshold import Tail
from edge_tsad.types import Channel, PolicySettings, Timing

TIMING = Timing(step_ns=1_000_000_000, window=16, hop=4, delay=5, smoothing=3, period=8)
CHANNELS = (Channel("pressure", "bar"), Channel("flow", "m³/h", "max", 2))
MODELS = {"model/a-fp32.onnx": b"onnx" * 50, "model/a-int8.tflite": b"tflite" * 30}


def tail(points: int = 50_000, peaks: int = 40) -> Tail:
    """The tail of ``peaks`` exceedances in ``points``."""
    return Tail(
        median=0.1,
        level=0.4,
        rate=peaks / points,
        shape=0.05,
        scale=0.1,
        points=points,
        peaks=tuple(0.9 - 0.01 * i for i in range(peaks)),
        draws=((1e-3, 0.05, 0.1), (2e-3, 0.04, 0.09)),
    )


def golden_windows(count: int = 4) -> GoldenWindows:
    """Windows whose peak scores are 0.25, 0.5, … around the level 0.6."""
    rng = np.random.default_rng(0)
    window = rng.normal(size=(count, TIMING.window, len(CHANNELS))).astype(np.float32)
    score = rng.uniform(0, 0.2, size=(count, TIMING.window)).astype(np.float32)
    score[:, 3] = np.arange(1, count + 1) / 4
    return GoldenWindows(window, np.ones_like(window), score)


def model_file(path: str, data: bytes, **changes) -> ModelFile:
    """The entry of a model file."""
    listed = dataclasses.asdict(Listed.of(path, data))
    entry = {
        "format": path.rpartition(".")[2],
        "scheme": "dynamic" if "int8" in path else "none",
        "runtimes": {"onnxruntime": "1.17"} if path.endswith("onnx") else {"litert": "2.0"},
        "tail": tail(),
        "parity": {"largest_error": 0.001},
    }
    return ModelFile(**listed, **{**entry, **changes})


def content() -> dict[str, bytes]:
    """Every listed member."""
    return {**MODELS, "golden.npz": golden_windows().to_bytes(), "card.md": b"# Card\n"}


def manifest(**changes) -> Manifest:
    """A manifest that lists :func:`content`."""
    files = content()
    golden = dataclasses.asdict(Listed.of("golden.npz", files["golden.npz"]))
    fields = {
        "name": "pump",
        "version": "1.2",
        "counter": 7,
        "minimum_counter": 3,
        "detector": DetectorInfo("coad", {"patch": 8, "rate": 0.5}),
        "timing": TIMING,
        "channels": CHANNELS,
        "policy": PolicySettings(minimum_duration=2, cooldown=60),
        "files": tuple(model_file(path, data) for path, data in MODELS.items()),
        "golden": Golden(
            **golden, seed=0, count=4, bounds=dict.fromkeys(MODELS, Bounds(0.01, 0.1, 0.6))
        ),
        "card": Listed.of("card.md", files["card.md"]),
        "training": {"points": 50_000, "seed": 1, "warnings": ["two gaps were skipped"]},
        "outputs": output_tensors(expected=False),
    }
    return Manifest(**{**fields, **changes})


def members(**changes) -> dict[str, bytes]:
    """All members of a valid, unsigned bundle; ``changes`` go to the manifest."""
    return {**content(), "manifest.json": manifest(**changes).to_json()}


def valid() -> bytes:
    """The bytes of a valid, unsigned bundle."""
    return pack(members())


def zipped(entries: list[tuple[str | zipfile.ZipInfo, bytes]], method: int = 0) -> bytes:
    """An archive as any zip program would write it; names may repeat."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return file.getvalue()
