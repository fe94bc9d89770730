"""The model card: what training knew, what alarms it promises, how near the files are, limits."""

from __future__ import annotations

import dataclasses

import pytest
from oracles import bundles, toy_files

from edge_tsad.runtime.threshold import Budget, Tail, Threshold
from export.card import LIMITS, write_card

PARITY = {
    "p999": 0.034, "max": 0.071, "latency_ms": 0.123, "runtime": "litert",
    "runtime_version": "2.3.0", "machine": "x86_64",
    "alerts": {"changed": 2, "expected": 310},
}  # fmt: skip
FILE = bundles.model_file("model/toy-int8.tflite", b"x" * 1234, parity=PARITY)
MANY, FEW = bundles.tail(50_000, 40), bundles.tail(100, 2)


def card(tail: Tail = MANY, budget: Budget | None = None) -> str:
    threshold = Threshold.from_tail(tail, budget or Budget(1, 10_000))
    return write_card(toy_files.model(), [FILE], threshold).decode()


def section(text: str, title: str) -> list[str]:
    """The lines under a heading."""
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0].strip().splitlines()


def test_it_has_facts_of_the_training_and_none_of_its_data() -> None:
    model = toy_files.model()
    lines = section(card(), "Training")
    assert "- history: sines" in lines and "- points: 20000" in lines and "- seed: 0" in lines
    assert any(line.startswith("- warnings: a <b>") for line in lines)
    assert "loss" not in card()
    digits = {f"{value:.4g}" for value in model.validation[0].ravel()[:200]}
    assert not digits & set(card().replace(",", " ").split())


def test_metrics_of_each_file_and_limits_are_there() -> None:
    row = section(card(), "Model files")[-1]
    assert row.startswith(
        "| model/toy-int8.tflite | dynamic | 1,234 | 0.034 | 0.071 | 2 of 310 | 0.12 |"
    )
    assert row.endswith("| litert 2.3.0, x86_64 |")
    assert section(card(), "Limits") == [LIMITS]
    assert "pressure (bar), flow" in card()


class TestAlarms:
    def test_a_calibrated_threshold_promises_a_rate_with_its_interval(self):
        budget = Budget(20, 50_000)
        threshold = Threshold.from_tail(MANY, budget)
        assert threshold.state == "CALIBRATED"
        lines = section(card(MANY, budget), "Alarms")
        assert lines[:2] == ["- State: CALIBRATED", f"- Threshold: {threshold.value:.5g}"]
        low, high = threshold.interval
        assert lines[2] == (
            f"- Expected openings in 10,000 points: {1e4 * threshold.rate:.3g}"
            f" (90 % interval {1e4 * low:.3g} to {1e4 * high:.3g})"
        )
        assert len(lines) == 3

    def test_an_extrapolated_one_says_how_much_history_is_lacking(self):
        budget = Budget(1, 1_000_000)
        lines = section(card(MANY, budget), "Alarms")
        needed = Threshold.from_tail(MANY, budget).needed_points
        assert lines[0] == "- State: EXTRAPOLATED"
        assert lines[-1] == f"- History lacking for the next better state: {needed:,}"
        assert needed > 0

    def test_an_uncalibrated_one_promises_nothing(self):
        text = card(FEW)
        lines = section(text, "Alarms")
        assert lines[0] == "- State: UNCALIBRATED"
        assert "0.5 × (highest − median)" in lines[2]
        assert lines[2].endswith("nobody knows its alarm rate")
        assert "Expected openings" not in text

    @pytest.mark.parametrize("tail", [MANY, dataclasses.replace(MANY, cross_fitted=False), FEW])
    def test_the_threshold_is_the_one_that_files_were_verified_with(self, tail):
        threshold = Threshold.from_tail(tail, Budget(1, 10_000))
        assert f"- Threshold: {threshold.value:.5g}" in section(card(tail), "Alarms")
