"""What is said about alerts, streams and the gateway, as JSON.

Every spelling here is part of the contract with subscribers. An alert is at most 2,048 bytes; its
identity is ``id`` and ``seq``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from edge_tsad.runtime.alerting import AlertEvent
from edge_tsad.runtime.limits import StormEvent
from edge_tsad.runtime.threshold import Threshold
from edge_tsad.types import NANOSECONDS, Channel, Timing

__all__ = [
    "LARGEST_ALERT",
    "AlertIdentity",
    "StreamFacts",
    "alert",
    "announced",
    "calibration",
    "ended",
    "pack",
    "storm",
]

LARGEST_ALERT = 2048
MOST_CHANNELS = 8
LONGEST_TEXT = 60
WEEK_S = 7 * 86_400
RAREST = {"7d": 7 / 3652.5, "10000pt": 1e-3}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What stays the same in all messages about a stream; ``digest`` is the bundle's.

    ``details`` are the names of what its detector tells besides, in the order of an event's.
    """

    site: str
    device: str
    stream: str
    timing: Timing
    channels: tuple[Channel, ...]
    threshold: Threshold
    bundle: str
    digest: str
    details: tuple[str, ...] = ()

    @property
    def per(self) -> tuple[str, float]:
        """The span that rates are given for, in words, and its points."""
        if not self.timing.has_rate:
            return "10000pt", 10_000.0
        return "7d", WEEK_S * NANOSECONDS / self.timing.step_ns


@dataclass(frozen=True, slots=True)
class AlertIdentity:
    """``id`` is the same in all messages of an alert; ``seq`` grows by one within an ``epoch``."""

    id: str
    seq: int
    epoch: str


def pack(message: Mapping[str, Any]) -> bytes:
    """The message as JSON in UTF-8."""
    text = json.dumps(message, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def alert(facts: StreamFacts, event: AlertEvent, identity: AlertIdentity) -> bytes:
    """The message for one step of an alert, at most 2,048 bytes."""
    parts = attribution(facts, event)
    message: dict[str, Any] = {
        "id": identity.id,
        "seq": identity.seq,
        "epoch": identity.epoch,
        "type": event.kind,
        "late": False,
        "site": facts.site,
        "device": facts.device,
        "stream": facts.stream,
        "onset": iso(facts.timing, event.onset),
        "onset_index": event.onset,
        "time": iso(facts.timing, event.index),
        "index": event.index,
        "peak_time": iso(facts.timing, event.peak_index),
        "peak_index": event.peak_index,
        "score": rounded(event.score),
        "peak": rounded(event.peak),
        "threshold": rounded(event.threshold),
        "calibration": calibration(facts),
        "rarity": rarity(facts, event.peak),
        "channels": parts,
        "rest_share": rest(parts),
        "observed": rounded(event.observed_fraction),
        "data_lost": event.data_lost,
        "acknowledged": event.acknowledged,
        "delay_s": facts.timing.delay_s if facts.timing.has_rate else None,
        "delay_points": facts.timing.delay,
        "bundle": clip(facts.bundle),
        "digest": facts.digest,
    }
    if known_details := details(facts, event):
        message["details"] = known_details
    message["reason"] = reason(facts, event, message)
    return fitted(message)


def details(facts: StreamFacts, event: AlertEvent) -> dict[str, float | int]:
    """What only this detector tells of the peak, by name; without what it could not tell."""
    if event.details is None:
        return {}
    told: dict[str, float | int] = {}
    for name, value in zip(facts.details, event.details.tolist(), strict=True):
        number = rounded(value, 4)
        if number is not None and number >= 0:
            told[name] = int(number) if number.is_integer() else number
    return told


def fitted(message: dict[str, Any]) -> bytes:
    """The message with as many of its channels as fit."""
    packed = pack(message)
    while len(packed) > LARGEST_ALERT and message["channels"]:
        message["channels"] = message["channels"][:-1]
        message["rest_share"] = rest(message["channels"])
        packed = pack(message)
    return packed


def ended(last: Mapping[str, Any], identity: AlertIdentity, why: str) -> bytes:
    """The end of an alert that cannot be followed any further, from its ``last`` message."""
    message = {**last, "seq": identity.seq, "epoch": identity.epoch, "type": "end"}
    message |= {"late": False, "score": None, "data_lost": True, "reason": why}
    return fitted(message)


def storm(
    facts: StreamFacts, event: StormEvent, last: Mapping[str, Any], identity: AlertIdentity
) -> bytes:
    """The summary of alerts that are withheld; ``last`` is the one before it."""
    message = dict(last)
    if event.event is not None:
        message = json.loads(alert(facts, event.event, identity))
    since = iso(facts.timing, event.onset)
    message |= {
        "kind": "storm",
        "id": identity.id,
        "seq": identity.seq,
        "epoch": identity.epoch,
        "type": event.kind,
        "onset": since,
        "onset_index": event.onset,
        "time": iso(facts.timing, event.index),
        "index": event.index,
        "withheld": event.withheld,
        "peak": rounded(event.peak),
        "rarity": rarity(facts, event.peak),
        "acknowledged": False,
    }
    verb = "opened" if event.kind == "end" else "open"
    message["reason"] = (
        f"{facts.stream}: alerts {verb} too often; {event.withheld} since {since or event.onset}"
        f" were not told one by one, the highest with score {event.peak:.3g}."
    )
    return fitted(message)


def announced(last: Mapping[str, Any], identity: AlertIdentity) -> bytes:
    """The first message of an alert that is open and was not told so far, from its ``last`` one."""
    message = {**last, "seq": identity.seq, "epoch": identity.epoch, "type": "new"}
    return fitted(message)


def calibration(facts: StreamFacts) -> dict[str, Any]:
    """How far the threshold is to be believed: state, and expected openings in a span.

    UNCALIBRATED nobody knows what to expect. ``needed_points`` more points of history would be
    needed for a calibrated one.
    """
    threshold = facts.threshold
    words, points = facts.per
    interval = threshold.interval
    return {
        "state": threshold.state,
        "openings": rounded(threshold.rate * points) if known(threshold) else None,
        "interval": None if interval is None else [rounded(bound * points) for bound in interval],
        "per": words,
        "needed_points": threshold.needed_points,
    }


def rarity(facts: StreamFacts, peak: float) -> dict[str, Any]:
    """Expected openings in a span that would be at least as high as this one, where known.

    Never fewer than one in ten years, or in ten million points: so far no tail can be believed.
    """
    words, points = facts.per
    if not known(facts.threshold):
        return {"openings": None, "per": words}
    openings = max(facts.threshold.rarity(peak) * points, RAREST[words])
    return {"openings": rounded(openings), "per": words}


def known(threshold: Threshold) -> bool:
    """Whether there is a tail to expect anything from."""
    return threshold.state != "UNCALIBRATED"


def attribution(facts: StreamFacts, event: AlertEvent) -> list[dict[str, Any]]:
    """The channels with the largest shares at the peak, with what was seen and expected."""
    order = np.argsort(-event.channel_share, kind="stable")[:MOST_CHANNELS]
    parts = []
    for i in (int(position) for position in order):
        expected = None if event.expected is None else rounded(float(event.expected[i]))
        parts.append(
            {
                "name": clip(facts.channels[i].name),
                "unit": clip(facts.channels[i].unit, 16),
                "share": rounded(float(event.channel_share[i]), 3),
                "seen": rounded(float(event.values[i])) if event.observed[i] > 0 else None,
                "expected": expected,
            }
        )
    return parts


def rest(parts: list[dict[str, Any]]) -> float:
    """The share of all channels that are not listed."""
    return float(round(max(0.0, 1.0 - sum(part["share"] for part in parts)), 3))


def reason(facts: StreamFacts, event: AlertEvent, message: Mapping[str, Any]) -> str:
    """The alert in a sentence for a person."""
    verb = {"new": "is unlike its history", "update": "is still unlike its history"}
    since = message["onset"] or f"point {event.onset}"
    words = f"{facts.stream} {verb.get(event.kind, 'was unlike its history')} since {since}"
    if event.kind == "end":
        words += f" until {message['time'] or f'point {event.index}'}"
    words += f": score {event.peak:.3g} at its peak, threshold {event.threshold:.3g}"
    if known(facts.threshold):
        words += f" ({how_rare(message['rarity'])})"
    if message["channels"] and message["channels"][0]["share"] > 0:
        words += "; " + blame(message["channels"][0])
    words += "".join(f"; {name} {value}" for name, value in message.get("details", {}).items())
    if facts.threshold.state == "UNCALIBRATED":
        words += "; the threshold is a guess until there is more history"
    elif facts.threshold.state == "EXTRAPOLATED":
        words += "; the threshold is extrapolated beyond its history"
    return words + "."


def blame(part: Mapping[str, Any]) -> str:
    """The channel that stands out, with its values."""
    unit = f" {part['unit']}" if part["unit"] else ""
    words = f"{part['name']} makes {part['share']:.0%} of it"
    if part["seen"] is not None and part["expected"] is not None:
        words += f" ({part['seen']:.4g}{unit} where {part['expected']:.4g}{unit} was expected)"
    return words


def how_rare(rarity: Mapping[str, Any]) -> str:
    """Expected openings as a phrase."""
    openings, per = rarity["openings"], rarity["per"]
    span = "7 days" if per == "7d" else "10,000 points"
    if openings is None:
        return "as high as never in its history"
    if openings <= 1.001 * RAREST[per]:  # it was rounded
        return f"rarer than once in {'10 years' if per == '7d' else '10 million points'}"
    if openings >= 1:
        return f"as high about {openings:.2g} times in {span}"
    if per == "7d":
        return f"as high about once in {7 / openings:.3g} days"
    return f"as high about once in {10_000 / openings:.3g} points"


def iso(timing: Timing, index: int) -> str | None:
    """The time of a grid index in ISO 8601 (UTC); None where points have no time."""
    if not timing.has_rate:
        return None
    try:
        moment = EPOCH + timedelta(microseconds=index * timing.step_ns // 1000)
    except OverflowError:
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rounded(number: float, digits: int = 6) -> float | None:
    """The number with so many significant digits; None for one that JSON cannot hold."""
    number = float(number)
    return float(f"{number:.{digits}g}") if math.isfinite(number) else None


def clip(text: str, length: int = LONGEST_TEXT) -> str:
    """The text, cut with an ellipsis to ``length`` bytes of UTF-8."""
    if len(text.encode()) <= length:
        return text
    return text.encode()[: length - 3].decode("utf-8", "ignore") + "…"
