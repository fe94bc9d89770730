"""The tiny bundle with several ONNX files: a slower one, a wrong one, one that does not open."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import helper
from oracles import tiny_bundle

from edge_tsad.bundle import Bounds, Listed, ModelFile, open_bundle, write_bundle

DETOUR = 400


@functools.cache
def fast() -> bytes:
    return tiny_bundle.graph(tiny_bundle.TIMING, len(tiny_bundle.CHANNELS))


@functools.cache
def slow() -> bytes:
    """The same scores after a detour of many operators that adds nothing."""
    model = onnx.load_model_from_string(fast())
    nodes, last = model.graph.node, "window"
    detour = []
    for i in range(DETOUR):
        detour.append(helper.make_node("Sin", [last], [f"detour{i}"]))
        last = f"detour{i}"
    detour.append(helper.make_node("Sub", [last, last], ["nothing"]))
    detour.append(helper.make_node("Add", ["window", "nothing"], ["same"]))
    rest = list(nodes)
    rest[0].input[0] = "same"
    del nodes[:]
    nodes.extend([*detour, *rest])
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@functools.cache
def wrong() -> bytes:
    """Sums up where the largest is asked for, and raises no error."""
    model = onnx.load_model_from_string(fast())
    for node in model.graph.node:
        if node.op_type == "ReduceMax":
            node.op_type = "ReduceSum"
    return bytes(model.SerializeToString())


def make(folder: Path, models: Mapping[str, bytes]) -> Path:
    """Write the bundle ``tiny-1.0.0.tsad`` with ``models`` by path; returns the file.

    Each has the level of its tail raised by its place in the order, to be told from the others.
    """
    bundle = open_bundle(tiny_bundle.make(folder))
    manifest = bundle.manifest
    entry = dataclasses.asdict(manifest.files[0])
    entry = {name: entry[name] for name in ("scheme", "runtimes", "parity")}
    files = tuple(
        ModelFile(
            **dataclasses.asdict(Listed.of(path, data)),
            **entry,
            format=path.rpartition(".")[2],
            tail=dataclasses.replace(tiny_bundle.tail(), median=0.7 + i / 100),
        )
        for i, (path, data) in enumerate(models.items())
    )
    bounds = dict.fromkeys(models, Bounds(1e-6, 0, 0.1))
    golden = dataclasses.replace(manifest.golden, bounds=bounds)
    others = {name: bundle.read(name) for name in ("golden.npz", "card.md")}
    return write_bundle(
        folder,
        dataclasses.replace(manifest, files=files, golden=golden),
        {**models, **others},
    )
