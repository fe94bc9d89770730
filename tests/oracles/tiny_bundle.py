"""The smallest real bundle: an ONNX graph whose score is |x − 0|, in engineering units.

``score`` is the largest part, ``channel_score`` = |window| · observed, ``expected`` = 0. What comes
out of a stream can thus be told without any net: with H = 1 and S = 1 the score of a point is the
largest of its channels' absolute values. With ``details`` the first of them is the score too, the
others are its negative: they cannot be told.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from edge_tsad.bundle import (
    Bounds,
    DetectorInfo,
    Golden,
    GoldenWindows,
    Listed,
    Manifest,
    ModelFile,
    output_tensors,
    write_bundle,
)
from edge_tsad.runtime.threshold import Tail
from edge_tsad.types import Channel, PolicySettings, Timing

SECOND = 1_000_000_000
TIMING = Timing(step_ns=SECOND, window=8, hop=1, delay=2, smoothing=1, period=4)
CHANNELS = (Channel("flow", "l/min"), Channel("pressure", "bar"))
POLICY = PolicySettings(minimum_duration=2, resolve_after=3, update_every=1000)


def graph(timing: Timing, channels: int, details: tuple[str, ...] = ()) -> bytes:
    """The model file."""
    shape = ["B", timing.window, channels]

    def tensor(name: str, axes: list[str | int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)

    nodes = [
        helper.make_node("Abs", ["window"], ["size"]),
        helper.make_node("Mul", ["size", "observed"], ["channel_score"]),
        helper.make_node("ReduceMax", ["channel_score", "last"], ["score"], keepdims=0),
        helper.make_node("Sub", ["window", "window"], ["expected"]),
    ]
    for i, name in enumerate(details):
        nodes.append(helper.make_node("Neg" if i else "Abs", ["score"], [name]))
    last = helper.make_tensor("last", TensorProto.INT64, [1], [2])
    made = helper.make_graph(
        nodes,
        "tiny",
        [tensor("window", shape), tensor("observed", shape)],
        [
            *(tensor(name, shape[:2]) for name in ("score", *details)),
            *(tensor(name, shape) for name in ("channel_score", "expected")),
        ],
        [last],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def tail() -> Tail:
    """As if the openings above 2, one in 100 points, were exponential with mean 0.3."""
    peaks = tuple(2.0 + 0.3 * float(np.log(100_000 / (i + 1))) for i in range(100))
    return Tail(
        median=0.7,
        level=2.0,
        rate=0.01,
        shape=0.0,
        scale=0.3,
        points=10_000_000,
        peaks=peaks,
        draws=tuple((0.01 + 1e-5 * i, 0.0, 0.3 + 1e-4 * i) for i in range(-50, 51)),
    )


def make(
    path: Path,
    timing: Timing = TIMING,
    channels: tuple[Channel, ...] = CHANNELS,
    policy: PolicySettings = POLICY,
    name: str = "tiny",
    details: tuple[str, ...] = (),
) -> Path:
    """Write the bundle into the file or folder ``path``; returns the file."""
    model = graph(timing, len(channels), details)
    window = np.random.default_rng(0).normal(size=(4, timing.window, len(channels)))
    window = window.astype(np.float32)
    golden = GoldenWindows(window, np.ones_like(window), np.abs(window).max(axis=2))
    files = {"model.onnx": model, "golden.npz": golden.to_bytes(), "card.md": b"# Tiny\n"}
    listed = {where: dataclasses.asdict(Listed.of(where, data)) for where, data in files.items()}
    manifest = Manifest(
        name=name,
        version="1.0.0",
        counter=1,
        minimum_counter=0,
        detector=DetectorInfo("tiny"),
        timing=timing,
        channels=channels,
        policy=policy,
        files=(
            ModelFile(
                **listed["model.onnx"],
                format="onnx",
                scheme="none",
                runtimes={"onnxruntime": "1.17"},
                tail=tail(),
            ),
        ),
        golden=Golden(
            **listed["golden.npz"], seed=0, count=4, bounds={"model.onnx": Bounds(1e-6, 0, 0.1)}
        ),
        card=Listed.of("card.md", files["card.md"]),
        outputs=output_tensors(expected=True, details=details),
    )
    return write_bundle(path, manifest, files)
