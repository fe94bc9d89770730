"""Whether a candidate has stood its trial: bounds on alarm rate, latency and memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge_tsad.runtime.trial_report import StreamTrial, TrialReport
from firmware_bridge.records import Trial
from firmware_bridge.settings import Settings

__all__ = ["Verdict", "judge"]

CERTAINTY = 0.999
"""A candidate that keeps its budget passes the bound on alarms with this probability."""
ENOUGH_WINDOWS = 20
"""Fewer say nothing of a 99 % quantile."""
MORE_OVER = 0.05
"""Part of the points that may be above the candidate's threshold and not above the active one's."""
LEAST_PART = 0.5
"""Of the trial's span, which the report must cover."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``problem`` ends the trial at once; ``missing`` is what still keeps it from being confirmed.

    ``finding`` says in a sentence what was seen. All three may be empty.
    """

    problem: str = ""
    missing: str = ""
    finding: str = ""


def judge(report: TrialReport | None, trial: Trial, settings: Settings) -> Verdict:
    """What ``report`` says; None where the runtime has written none."""
    # A report that is older than the trial is of an earlier one of the same bundle.
    if report is None or report.boot_id != trial.boot_id or report.since_s < trial.begun_s:
        return Verdict(missing="no runtime has reported on it")
    problem = report.problem or breach(report, settings)
    if problem:
        return Verdict(problem=problem)
    return Verdict(missing=gap(report, trial), finding=finding(report))


def breach(report: TrialReport, settings: Settings) -> str:
    """The first bound that was not kept; empty where all are."""
    if report.memory_mb > settings.trial_memory_mb:
        return (
            f"it took {report.memory_mb:.0f} MB more memory; {settings.trial_memory_mb:.0f} MB are "
            "allowed (trial_memory_mb in agent.toml)"
        )
    for stream in report.streams:
        if problem := alarms(stream) or latency(stream, settings):
            return f"{stream.stream}: {problem}"
    return ""


def alarms(stream: StreamTrial) -> str:
    """More alarms than the active bundle had, and than its budget lets happen by chance?"""
    allowed = stream.active_alarms + by_chance(stream.expected)
    if stream.alarms > allowed:
        return (
            f"it raised {stream.alarms} alarms in {stream.points:,} points; the active bundle "
            f"raised {stream.active_alarms}, and its budget allows {allowed}"
        )
    # One alarm that never ends is but one opening.
    share = (stream.over - stream.active_over) / max(stream.points, ENOUGH_WINDOWS)
    if share > MORE_OVER:
        return (
            f"{stream.over:,} of {stream.points:,} points were above its threshold, and "
            f"{stream.active_over:,} above that of the active bundle"
        )
    return ""


def latency(stream: StreamTrial, settings: Settings) -> str:
    """Too slow for the time between two windows?"""
    if not stream.between_ms or stream.windows < ENOUGH_WINDOWS:
        return ""
    allowed_ms = stream.between_ms * settings.trial_load
    if stream.p99_ms <= allowed_ms:
        return ""
    return (
        f"a window takes it {stream.p99_ms:.3g} ms; {allowed_ms:.3g} ms are allowed, as one comes "
        f"every {stream.between_ms:.3g} ms (trial_load in agent.toml)"
    )


def gap(report: TrialReport, trial: Trial) -> str:
    """What is missing for a judgement; empty where nothing is."""
    silent = [stream.stream for stream in report.streams if not stream.points]
    if silent or not report.streams:
        return f"it has scored no point of {', '.join(silent) or 'any stream'} yet"
    covered_s = min(report.at_s, trial.until_s) - report.since_s
    if covered_s < LEAST_PART * trial.span_s:
        return f"it ran for {max(covered_s, 0.0):.0f} s of it only"
    return ""


def finding(report: TrialReport) -> str:
    """What was seen, for people."""
    parts = [
        f"{s.stream}: {s.points:,} points, {s.alarms} alarms (active {s.active_alarms}), "
        f"{s.p99_ms:.3g} ms a window (active {s.active_p99_ms:.3g})"
        for s in report.streams
    ]
    return "; ".join([*parts, f"{report.memory_mb:+.1f} MB"])


def by_chance(expected: float) -> int:
    """The number that a Poisson count with mean ``expected`` exceeds in one case of a thousand."""
    if not 0 < expected < 500:
        return math.ceil(max(expected, 0.0) * 1.5)
    count, term = 0, math.exp(-expected)
    total = term
    while total < CERTAINTY:
        count += 1
        term *= expected / count
        total += term
    return count
