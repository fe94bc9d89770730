"""A candidate is judged by what people have set for the stream that it runs beside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from oracles import tiny_bundle

from edge_tsad.config import parse_config
from edge_tsad.runtime.opening import StreamOpener
from edge_tsad.runtime.outbox import Bounds, Outbox
from edge_tsad.runtime.shadow import Shadow
from edge_tsad.runtime.sources.base import Batch
from edge_tsad.runtime.worker import StreamWorker
from edge_tsad.types import Now

NOW = Now(0, 0, "boot")
START = 1_800_000_000
TEXT = """site = "plant"
device = "gw"
[[streams]]
name = "pump"
bundle = "tiny.tsad"
source = { type = "csv", path = "x.csv" }
"""


def test_a_sensitivity_that_a_command_has_set_counts_for_the_candidate_too(tmp_path: Path) -> None:
    tiny_bundle.make(tmp_path / "tiny.tsad")
    (tmp_path / "x.csv").write_text("flow,pressure\n")
    config = parse_config(TEXT, tmp_path)
    outbox = Outbox(tmp_path / "outbox.db", Bounds(), NOW)
    (stream,), (candidate,) = (StreamOpener(config).open_all() for _ in range(2))
    worker = StreamWorker(stream, outbox, tmp_path / "pump.npz")
    batch = Batch(np.array([START * 10**9], np.int64), np.full((1, 2), 0.5, np.float32))
    worker.take(batch, NOW)
    worker.retune(4.0, NOW)
    shadow = Shadow(candidate, worker)
    assert shadow.pipeline.policy.threshold == worker.pipeline.policy.threshold
    assert shadow.stream.facts.threshold.value < candidate.facts.threshold.value
    worker.retune(0.5, NOW)  # while it is tried
    shadow.take(batch)
    assert shadow.pipeline.policy.threshold == worker.pipeline.policy.threshold
    worker.retune(None, NOW)
    shadow.take(batch)
    assert shadow.stream.facts.threshold == candidate.facts.threshold
    outbox.close()
