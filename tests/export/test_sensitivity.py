"""Layers that a scheme would ruin stay float, found by measuring and not by their place."""

from __future__ import annotations

import copy

import pytest
import torch
from oracles import toy_files

from export.bench import Bench
from export.quantize import SCHEMES
from export.sensitivity import most_harmful
from export.subject import subject_of
from export.verify import RefusedError


def fragile():
    """A toy whose second large layer int8 cannot hold: a huge weight for a feature that is 0."""
    detector = copy.deepcopy(toy_files.detector())
    with torch.no_grad():
        detector.embed.weight[0], detector.embed.bias[0] = 0, -1
        detector.mix.bias[0] = 0
        detector.hidden.weight[:, 0] = 300
    return detector


@pytest.fixture(scope="module")
def bench():
    return Bench.of(subject_of(toy_files.model_of(fragile()), 0), None, 0)


@pytest.mark.parametrize("kind", list(toy_files.EXPORTERS))
def test_only_the_layer_that_costs_most_stays_float(kind, bench):
    exporter, scheme = toy_files.EXPORTERS[kind], SCHEMES["dynamic"]
    original = exporter.convert(fragile())
    with pytest.raises(RefusedError):
        bench.finish("all", exporter.quantize(original, "dynamic", bench.ranges), exporter, scheme)
    worst = most_harmful(original, exporter, scheme, bench.ranges, bench.gate)
    assert worst == [1, 0]
    made = bench.quantized("toy", original, exporter, scheme)
    assert made.entry.scheme == "dynamic", "and not the scheme instead"
    assert made.entry.parity["in_float"] == {"1": "32→32 (float16)"}
