"""Scores on the kernels of another runtime, as the gate sees them."""

from __future__ import annotations

import dataclasses

import pytest
from oracles import toy_files

from edge_tsad.registry import BACKENDS
from edge_tsad.training.torch_backend import TorchBackend
from export.gate import Gate
from export.kernels import disagreement
from export.quantize import SCHEMES
from export.subject import subject_of
from export.verify import Reference, RefusedError, run


@pytest.fixture(scope="module")
def reference():
    threshold = subject_of(toy_files.model(), 0).threshold(None)
    return Reference.of(
        TorchBackend(toy_files.detector()),
        toy_files.detector().timing,
        toy_files.normal(),
        toy_files.anomalous(),
        median=threshold.median,
        threshold=threshold.value,
    )


def between(reference, kind, scheme):
    """What the gate measures of a toy file."""
    exporter, data = toy_files.EXPORTERS[kind], toy_files.file(kind, scheme)
    outputs = run(BACKENDS[next(iter(exporter.runtimes))](data), reference.windows)
    return disagreement(data, exporter, outputs, reference)


@pytest.mark.parametrize("scheme", ["none", "fp16", "weights"])
def test_floats_are_nearly_the_same_on_other_kernels(reference, scheme):
    assert 0 < between(reference, "tflite", scheme) < 1e-5


def test_int8_outputs_are_rounded_otherwise(reference):
    """In a net this small, whose scores are not averaged, by more than is allowed."""
    assert between(reference, "tflite", "static") > SCHEMES["static"].across
    assert between(reference, "onnx", "static") == 0, "it has no other kernels"


def test_the_gate_refuses_what_differs_between_runtimes():
    gate = Gate.of(subject_of(toy_files.model(), 0), None, 0)
    exporter, data = toy_files.EXPORTERS["tflite"], toy_files.file("tflite", "dynamic")
    strict = dataclasses.replace(SCHEMES["dynamic"], across=1e-6)
    with pytest.raises(RefusedError, match=r"differ by .* between runtimes, where 1e-06"):
        gate.check("toy.tflite", data, exporter, strict)
