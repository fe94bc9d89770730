"""What a person would ask about a bundle, as one JSON-able table."""

from __future__ import annotations

from typing import Any

from edge_tsad.bundle.archive import Bundle
from edge_tsad.bundle.manifest import SIGNATURE, ModelFile
from edge_tsad.decode import Json, encode
from edge_tsad.runtime.threshold import Budget, Threshold
from edge_tsad.types import NANOSECONDS, Timing

__all__ = ["default_budgets", "summarize"]


def default_budgets(timing: Timing) -> tuple[str, ...]:
    """The alarm budgets shown unasked: by days, or by points where the data has no rate."""
    if timing.has_rate:
        return ("1/1d", "1/7d", "1/30d")
    return ("1/1000pt", "1/10000pt", "1/100000pt")


def summarize(bundle: Bundle, budgets: tuple[str, ...] = ()) -> dict[str, Json]:
    """All facts of ``bundle``; spans are ``{"points": n, "seconds": s or None}``.

    Raises:
        ConfigError: a budget is malformed.
    """
    manifest, timing = bundle.manifest, bundle.manifest.timing
    wanted = budgets or default_budgets(timing)
    return {
        "path": bundle.where,
        "name": manifest.name,
        "version": manifest.version,
        "digest": bundle.digest,
        "size": bundle.size,
        "format_version": manifest.format_version,
        "counter": manifest.counter,
        "minimum_counter": manifest.minimum_counter,
        "signature": signature(bundle),
        "detector": encode(manifest.detector),
        "channels": encode(manifest.channels),
        "timing": spans(timing),
        "policy": policy(bundle),
        "files": [model_file(file, timing, wanted) for file in manifest.files],
        "golden": encode(manifest.golden),
        "card": encode(manifest.card),
        "training": {k: v for k, v in manifest.training.items() if k != "warnings"},
        "warnings": warnings(bundle),
    }


def signature(bundle: Bundle) -> dict[str, Json]:
    """Whether it is signed and whether that was checked; the ids are claims until it was."""
    if bundle.signature is None:
        return {"state": "unsigned", "keys": []}
    from edge_tsad.signing import Signatures  # noqa: PLC0415 - an unsigned bundle needs none of it

    keys = [one.key for one in Signatures.from_json(bundle.signature).signatures]
    return {"state": "verified" if bundle.verified else "not checked", "keys": keys}


def span(points: float, timing: Timing) -> dict[str, Json]:
    """A number of points, and of seconds where the data has a rate."""
    seconds = points * timing.step_ns / NANOSECONDS if timing.has_rate else None
    return {"points": points, "seconds": seconds}


def spans(timing: Timing) -> dict[str, Json]:
    """The grid and its spans."""
    labels = ("period", "window", "hop", "delay", "smoothing")
    table: dict[str, Json] = {label: span(getattr(timing, label), timing) for label in labels}
    step = timing.step_ns / NANOSECONDS if timing.has_rate else None
    return {"step_seconds": step, "has_rate": timing.has_rate, **table}


def policy(bundle: Bundle) -> dict[str, Json]:
    """The alert policy's spans."""
    settings, timing = bundle.manifest.policy, bundle.manifest.timing
    labels = ("minimum_duration", "resolve_after", "cooldown", "update_every")
    table: dict[str, Json] = {label: span(getattr(settings, label), timing) for label in labels}
    return {"hysteresis": settings.hysteresis, **table}


def model_file(file: ModelFile, timing: Timing, budgets: tuple[str, ...]) -> dict[str, Json]:
    """One model file, with the threshold that each alarm budget gives."""
    return {
        "path": file.path,
        "format": file.format,
        "scheme": file.scheme,
        "size": file.size,
        "sha256": file.sha256,
        "runtimes": dict(file.runtimes),
        "parity": dict(file.parity),
        "history": span(file.tail.points, timing),
        "budgets": [budget(text, file, timing) for text in budgets],
    }


def budget(text: str, file: ModelFile, timing: Timing) -> dict[str, Json]:
    """The threshold for an alarm budget; all but it and ``needed`` are openings in its span.

    ``expected`` is None where the threshold is only a margin and nobody knows.
    """
    wanted = Budget.parse(text, timing)
    threshold = Threshold.from_tail(file.tail, wanted)
    interval = threshold.interval
    needed, known = threshold.needed_points, threshold.state != "UNCALIBRATED"
    return {
        "budget": text,
        "threshold": threshold.value,
        "median": threshold.median,
        "state": threshold.state,
        "expected": threshold.rate * wanted.points if known else None,
        "interval": None if interval is None else [rate * wanted.points for rate in interval],
        "counts": threshold.counts(wanted.points),
        "needed": span(needed, timing) if needed else None,
    }


def warnings(bundle: Bundle) -> list[str]:
    """What training warned of, and that nobody vouches for the bundle where nobody does."""
    given: Any = bundle.manifest.training.get("warnings", [])
    lines = [str(line) for line in given] if isinstance(given, list) else [str(given)]
    if bundle.signature is None:
        lines.append(f"not signed: there is no {SIGNATURE}; a gateway that demands one refuses it")
    return lines
