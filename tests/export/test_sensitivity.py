"""Layers that a scheme would ruin stay float, found by measuring and not by their place."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from oracles import toy_files

from export.bench import Bench
from export.quantize import SCHEMES
from export.sensitivity import Sensitivity
from export.subject import subject_of
from export.verify import RefusedError
from export.windows import Windows


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
        bench.finish(
            "all", exporter.quantize(original, "dynamic", bench.ranges[0]), exporter, scheme
        )
    worst = Sensitivity.of(exporter, bench.gate).most_harmful(original, scheme, bench.ranges[0])
    assert worst == [1, 0]
    made = bench.quantized("toy", original, exporter, scheme)
    assert made.entry.scheme == "dynamic", "and not the scheme instead"
    assert made.entry.parity["in_float"] == {"1": "32→32 (float16)"}


@pytest.mark.parametrize("kind", list(toy_files.EXPORTERS))
def test_ranges_are_those_that_cost_less(kind):
    exporter, scheme = toy_files.EXPORTERS[kind], SCHEMES["static"]
    original = toy_files.original(kind)
    bench = Bench.of(subject_of(toy_files.model_of(toy_files.detector()), 0), None, 0)
    usual = bench.ranges[0]
    narrow = Windows(usual.window * np.float32(0.1), usual.observed)
    sensitivity = Sensitivity.of(exporter, bench.gate)
    for candidates in ((usual, narrow), (narrow, usual)):
        assert sensitivity.ranges_by_cost(original, scheme, candidates)[0] is usual
