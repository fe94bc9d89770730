"""Model files of the toy detector, converted once for all tests."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from oracles.toy_detector import ToyDetector, sines, toy

from edge_tsad.runtime.scorer import StreamScorer
from edge_tsad.training.calibrate import fit_tail
from edge_tsad.training.model import TrainedModel
from edge_tsad.training.series import Segment
from edge_tsad.training.torch_backend import TorchBackend
from edge_tsad.types import Cells, Channel, PolicySettings
from export.onnx import OnnxExporter
from export.tflite import TFLiteExporter
from export.windows import Windows, distorted

EXPORTERS = {"onnx": OnnxExporter(), "tflite": TFLiteExporter()}
SCHEMES = ("none", "dynamic")


@functools.cache
def detector() -> ToyDetector:
    return toy()


@functools.cache
def normal(count: int = 40) -> Windows:
    """Normal windows, all of it observed."""
    window = sines(count, detector().timing, detector().channels, seed=1000)
    return Windows(window, np.ones_like(window))


@functools.cache
def held_out(points: int = 640) -> Segment:
    """Normal operation in one piece, which the detector has not seen."""
    timing = dataclasses.replace(detector().timing, window=points)
    values = sines(1, timing, detector().channels, seed=2000)[0]
    observed = np.ones_like(values)
    for array in (values, observed):
        array.flags.writeable = False  # it is shared by all tests of a process
    return Segment(values, observed)


@functools.cache
def anomalous() -> Windows:
    return distorted(normal(), detector().timing.period, seed=7)


@functools.cache
def ranges() -> Windows:
    """What ranges of activations are taken from."""
    return Windows.join([normal(), anomalous()])


@functools.cache
def original(kind: str) -> bytes:
    """What the converter makes, with its names."""
    return EXPORTERS[kind].convert(detector())


@functools.cache
def file(kind: str, scheme: str = "none") -> bytes:
    return EXPORTERS[kind].quantize(original(kind), scheme, ranges())


@functools.cache
def model(channel: str = "pressure") -> TrainedModel:
    """A trained model whose calibration are its own scores of normal operation."""
    return model_of(detector(), channel)


def model_of(detector: ToyDetector, channel: str = "pressure") -> TrainedModel:
    """A trained model around some toy; the first channel's name is given."""
    timing, stretch = detector.timing, held_out(20_000)
    policy = PolicySettings(resolve_after=timing.period)  # as training sets it
    channels = (Channel(channel, "bar"), Channel("flow"))
    index = np.arange(len(stretch), dtype=np.int64)
    scorer = StreamScorer(timing, len(channels), TorchBackend(detector))
    score = scorer.extend(Cells(index, stretch.values, stretch.observed)).score
    blocks = [score[:10_000], score[10_000:]]
    return TrainedModel(
        detector,
        channels,
        policy,
        fit_tail(blocks, policy, 0),
        blocks,
        (normal().window, normal().observed),
        held_out(),
        {
            "history": "sines",
            "points": len(stretch),
            "seed": 0,
            "loss_curve": [3.0, 2.0, 1.5],
            "warnings": ["a <b>bold</b> warning"],
        },
    )
