"""CMDML on a device: both formats and both precisions say what torch says."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from oracles.histories import history, short_timing, sines

from edge_tsad.detectors.cmdml import CMDML
from edge_tsad.registry import BACKENDS, EXPORTERS
from edge_tsad.training.torch_backend import TorchBackend
from edge_tsad.training.windows import WindowSampler
from export.quantize import scheme_named
from export.verify import Reference, run, verify
from export.windows import Windows, distorted

CHANNELS = 2


@cache
def detector() -> CMDML:
    series = history(sines(1200, channels=CHANNELS))
    return CMDML.fit(series, short_timing(), seed=0, steps=60, classes=6)


@cache
def reference() -> Reference:
    series = history(sines(1200, channels=CHANNELS, seed=4))
    normal = Windows(*WindowSampler(series.segments(64), 64).spread(48))
    spoiled = distorted(normal, 16, seed=0)
    fitted = detector()
    with torch.inference_mode():
        score = fitted(torch.from_numpy(normal.window), torch.from_numpy(normal.observed))
    known = score["score"].numpy()
    return Reference.of(
        TorchBackend(fitted),
        fitted.timing,
        normal,
        spoiled,
        median=float(np.median(known)),
        threshold=float(known.max()),
    )


@cache
def converted(kind: str) -> bytes:
    return bytes(EXPORTERS[kind]().convert(detector()))


@pytest.mark.parametrize("kind", list(EXPORTERS))
@pytest.mark.parametrize("name", ["none", "dynamic"])
def test_a_file_passes_the_gate(kind: str, name: str) -> None:
    exporter = EXPORTERS[kind]()
    data = exporter.quantize(converted(kind), name, reference().windows)
    checked = verify(kind, data, exporter, scheme_named(name), reference())
    assert checked.parity.p999 < (1e-4 if name == "none" else 0.05)
    assert len(data) < 150_000


@pytest.mark.parametrize("kind", list(EXPORTERS))
@pytest.mark.parametrize(("name", "same", "degrees"), [("none", 0.999, 0.1), ("dynamic", 0.9, 5.0)])
def test_a_file_tells_the_class_and_the_turn(
    kind: str, name: str, same: float, degrees: float
) -> None:
    exporter = EXPORTERS[kind]()
    data = exporter.quantize(converted(kind), name, reference().windows)
    found = run(BACKENDS[next(iter(exporter.runtimes))](data), reference().windows)
    wanted = reference().outputs
    assert np.ptp(wanted["class"]) > 1 and wanted["turn_deg"].max() > 10
    assert np.mean(found["class"] == wanted["class"]) > same
    apart = np.abs(found["turn_deg"] - wanted["turn_deg"])
    assert np.quantile(apart[(found["turn_deg"] >= 0) & (wanted["turn_deg"] >= 0)], 0.99) < degrees


def test_a_quantized_file_is_smaller() -> None:
    exporter = EXPORTERS["onnx"]()
    sizes = [len(exporter.quantize(converted("onnx"), name, reference().windows))
             for name in ("none", "dynamic")]  # fmt: skip
    assert sizes[1] < 0.85 * sizes[0]


def test_backends_take_the_declared_shape() -> None:
    exporter = EXPORTERS["onnx"]()
    data = exporter.quantize(converted("onnx"), "none", reference().windows)
    backend = BACKENDS["onnxruntime"](data, shape=(64, CHANNELS))
    one = reference().windows.take(1)
    assert backend.score(one.window, one.observed)["score"].shape == (1, 64)
