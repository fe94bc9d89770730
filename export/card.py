"""The model card of a bundle: what a person should know before trusting it, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edge_tsad.bundle.manifest import ModelFile
from edge_tsad.runtime.threshold import Threshold

if TYPE_CHECKING:
    from edge_tsad.training.model import TrainedModel

__all__ = ["LIMITS", "added_files", "alarm_lines", "write_card"]

LONG_FACTS = ("loss_curve",)

LIMITS = (
    "The detector knows the history it was trained on. What that history lacks (other operating"
    " modes, seasons, sensors) may be called anomalous, and an anomaly that the history holds"
    " may not be."
)


def write_card(model: TrainedModel, files: Sequence[ModelFile], threshold: Threshold) -> bytes:
    """The card as UTF-8; holds facts of the training and of each file, never data.

    ``threshold`` is the one that the files were verified with.
    """
    timing = model.timing
    rate = f"{timing.step_ns / 1e9:g} s" if timing.has_rate else "unknown (points are counted)"
    lines = [
        f"# Anomaly detector {model.detector.name}",
        "",
        f"- Channels: {', '.join(_channel(c.name, c.unit) for c in model.channels)}",
        f"- Grid step: {rate}",
        f"- Window {timing.window}, hop {timing.hop}, delay {timing.delay}, smoothing"
        f" {timing.smoothing}, dominant period {timing.period} (points)",
        "",
        "## Training",
        "",
        *(f"- {key.replace('_', ' ')}: {_text(value)}" for key, value in _facts(model)),
        "",
        "## Alarms",
        "",
        *(f"- {line}" for line in alarm_lines(threshold)),
        "",
        "## Model files",
        "",
        "Score errors are against the float model, in units of threshold − median normal score, on"
        f" normal windows that the fit {_seen(model)}. Alerts are those on a stream with injected"
        " anomalies.",
        "",
        *_table(files),
        "",
        "## Limits",
        "",
        LIMITS,
        "",
    ]
    return "\n".join(lines).encode()


def _seen(model: TrainedModel) -> str:
    return "had not seen" if model.facts.get("held_out_unseen") else "had seen"


def added_files(files: Sequence[ModelFile]) -> bytes:
    """What is appended to a card when ``files`` are added to its bundle."""
    lines = [
        "## Files added later",
        "",
        "Made from the bundle's float32 files and data of normal operation; errors as above, but"
        " against the float32 file. The table above still lists what these may have replaced.",
        "",
        *_table(files),
        "",
    ]
    return "\n".join(["", *lines]).encode()


def _table(files: Sequence[ModelFile]) -> list[str]:
    return [
        "| file | scheme | bytes | error p99.9 | error max | alerts changed | ms a window |"
        " measured with |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(file) for file in files),
    ]


def alarm_lines(threshold: Threshold) -> list[str]:
    """What the alarm rate promises; budgets are chosen on the gateway, this is for the default."""
    lines = [f"State: {threshold.state}", f"Threshold: {threshold.value:.5g}"]
    if threshold.state == "UNCALIBRATED":
        lines.append(
            f"A fallback, {threshold.margin:.2g} × (highest − median) above the highest score of"
            " the history; nobody knows its alarm rate"
        )
    elif threshold.interval is not None:
        low, high = (10_000 * bound for bound in threshold.interval)
        lines.append(
            f"Expected openings in 10,000 points: {10_000 * threshold.rate:.3g}"
            f" (90 % interval {low:.3g} to {high:.3g})"
        )
    if threshold.needed_points:
        lines.append(f"History lacking for the next better state: {threshold.needed_points:,}")
    return lines


def _facts(model: TrainedModel) -> list[tuple[str, Any]]:
    """Those that fit on a line."""
    return sorted((key, value) for key, value in model.facts.items() if key not in LONG_FACTS)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(entry)}" for key, entry in value.items()) or "none"
    if isinstance(value, list):
        return "; ".join(_text(entry) for entry in value) or "none"
    return str(value)


def _channel(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name


def _in_float(facts: Any) -> str:
    """Which large layers compute in float32 all the same."""
    layers = facts.get("in_float", {}).values()
    return f", but {', '.join(layers)} in float32" if layers else ""


def _row(file: ModelFile) -> str:
    facts: Any = file.parity
    alerts = facts["alerts"]
    return (
        f"| {file.path} | {file.scheme}{_in_float(facts)} | {file.size:,} | {facts['p999']:.2g} |"
        f" {facts['max']:.2g} | {alerts['changed']} of {alerts['expected']} |"
        f" {facts['latency_ms']:.2f} |"
        f" {facts['runtime']} {facts['runtime_version']}, {facts['machine']} |"
    )
