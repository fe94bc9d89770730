"""The report as one HTML page: no script, no address, nothing to fetch."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from edge_tsad.bundle.manifest import ModelFile
from edge_tsad.bundle.summary import summarize
from edge_tsad.runtime.threshold import INTERVAL, Threshold
from export.card import LIMITS, alarm_lines
from export.report import figures
from export.report.facts import Facts, Parity

__all__ = ["report_html"]

CSS = """
body { font: 15px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
h2 { margin-top: 2em; border-bottom: 1px solid #ccc }
table { border-collapse: collapse; font-size: 13px }
th, td { text-align: left; padding: .2em .8em .2em 0; vertical-align: top }
tr { border-bottom: 1px solid #eee }
td { overflow-wrap: anywhere }
svg { max-width: 100%; height: auto }
figure { margin: 1em 0 } figcaption { color: #555; font-size: 13px }
.bad { color: #a00 }
"""
# Even a browser that found an address in here would fetch nothing.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
LONG_FACTS = ("loss_curve", "warnings")


def report_html(facts: Facts) -> bytes:
    """The page as UTF-8; equal facts give equal bytes.

    It holds scores, counts and settings, and of the data only the windows of ``facts.examples``.
    """
    manifest = facts.bundle.manifest
    title = f"{manifest.name} {manifest.version}"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{text(title)}</title><style>{CSS}</style></head><body>",
        f"<h1>{text(title)}</h1>",
        *identity(facts),
        *training(facts),
        *alarms(facts),
        *examples(facts),
        *parity(facts),
        "<h2>Limits</h2>",
        paragraph(LIMITS),
        "</body></html>",
    ]
    return ("\n".join(parts) + "\n").encode()


def identity(facts: Facts) -> list[str]:
    """What it is, and what this page shows of the data."""
    manifest, timing = facts.bundle.manifest, facts.model.timing
    count, points = len(facts.examples), timing.window
    step = f"{timing.step_ns / 1e9:g} s" if timing.has_rate else "unknown; points are counted"
    channels = (f"{c.name} ({c.unit})" if c.unit else c.name for c in manifest.channels)
    rows = {
        "bundle": facts.bundle.digest,
        "detector": f"{manifest.detector.name}, {facts.model.detector.parameter_count():,}"
        " parameters",
        "channels": ", ".join(channels),
        "grid step": step,
        "window, hop, delay, smoothing": f"{timing.window}, {timing.hop}, {timing.delay},"
        f" {timing.smoothing} points",
        "dominant period": f"{timing.period} points",
    }
    return [
        paragraph(
            f"This page shows {count} windows of {points:,} points of the training data, under"
            " “Expected against seen”. It holds no other training data: everything else is scores,"
            " counts and settings."
        ),
        pairs(rows),
    ]


def training(facts: Facts) -> list[str]:
    """The loss curve, the facts of the training, its warnings."""
    known = facts.model.facts
    curve: list[float] = known.get("loss_curve", [])
    shown = {
        key.replace("_", " "): words(value) for key, value in known.items() if key not in LONG_FACTS
    }
    drawn = (
        figure(figures.loss(curve), "Loss over the fit, as means of stretches of equal length.")
        if curve
        else paragraph("The training recorded no loss.")
    )
    warnings = [f'<p class="bad">{text(line)}</p>' for line in known.get("warnings", [])]
    return ["<h2>Training</h2>", drawn, *warnings, pairs(shown)]


def alarms(facts: Facts) -> list[str]:
    """Calibration scores, the threshold, and how far it is to be believed."""
    threshold, budget = facts.threshold, facts.budget
    low, high = threshold_band(facts)
    band = f" The band is its 90 % interval, {low:.4g} to {high:.4g}." if low < high else ""
    blocks = facts.model.calibration
    points = sum(len(block) for block in blocks)
    span = f"{budget.openings:g} in {budget.points:,.0f} points"
    calibration = figures.scores(blocks, threshold, (low, high))
    return [
        "<h2>Scores and threshold</h2>",
        "<ul>",
        *(f"<li>{text(line)}</li>" for line in alarm_lines(threshold)),
        f"<li>Budget shown: {span}</li>",
        "</ul>",
        figure(
            calibration,
            f"Scores of {points:,} points of the history, each by a net that had not seen it where"
            f" the history was long enough.{band}",
        ),
        figure(
            figures.openings(threshold, budget),
            f"Alert openings in {budget.points:,.0f} points, against the threshold. "
            + (
                "Nobody knows the rate: the threshold is a margin above what was seen."
                if threshold.state == "UNCALIBRATED"
                else "The budget meets the fitted tail at the threshold."
            ),
        ),
        "<h3>Thresholds of each file</h3>",
        budgets(facts),
    ]


def threshold_band(facts: Facts) -> tuple[float, float]:
    """The 90 % interval of the threshold over the tail's draws; empty where nobody knows."""
    threshold: Threshold = facts.threshold
    if threshold.state == "UNCALIBRATED":
        return threshold.value, threshold.value
    values = threshold.tail.quantile(facts.budget.rate)
    low, high = np.quantile(values, INTERVAL)
    return float(low), float(high)


def budgets(facts: Facts) -> str:
    """What each alarm budget means for each file."""
    rows = []
    for file in summarize(facts.bundle)["files"]:
        for entry in file["budgets"]:
            expected = "unknown" if entry["expected"] is None else f"{entry['expected']:.3g}"
            if entry["interval"]:
                expected += " ({:.3g} to {:.3g})".format(*entry["interval"])
            seen = "unknown" if entry["counts"] is None else "{} to {}".format(*entry["counts"])
            threshold = f"{entry['threshold']:.5g}"
            rows.append([file["path"], entry["budget"], threshold, entry["state"], expected, seen])
    header = ["file", "budget", "threshold", "state", "expected openings", "will be seen (90 %)"]
    return table(header, rows)


def examples(facts: Facts) -> list[str]:
    """Windows with what the detector expected in them."""
    parts = ["<h2>Expected against seen</h2>"]
    if any(one.expected is None for one in facts.examples):
        parts.append(paragraph("This detector expects no values; it gives scores only."))
    for one in facts.examples:
        drawn = figures.example(one, facts.bundle.manifest.channels, facts.threshold)
        caption = (
            f"{one.title[0].upper()}{one.title[1:]}; at most {figures.MOST_CHANNELS} channels are"
            " shown. The threshold is for scores averaged over several windows, as in a stream."
        )
        parts.append(figure(drawn, caption))
    return parts


def parity(facts: Facts) -> list[str]:
    """Each file beside the detector."""
    header = [
        "file",
        "bytes",
        "scheme",
        "run by",
        "error p99.9",
        "bound",
        "error max",
        "alerts changed",
        "in float",
        "ms",
        "needs",
    ]
    parts = [
        "<h2>Quantization parity</h2>",
        paragraph(
            "Every file was run on the windows that the model keeps for checks, and its scores are"
            " compared with the detector's in float32. Errors are shares of the way from the"
            " median normal score to the threshold; times are for one window where it was exported."
        ),
        table(header, [parity_cells(one) for one in facts.parity]),
    ]
    compared = [one for one in facts.parity if alerts_of(one.entry)]
    if compared:
        caption = (
            "Alerts on a stream with injected anomalies when the files were made: those that a file"
            " and the detector both gave, and those that changed."
        )
        names = [one.entry.path for one in compared]
        parts.append(
            figure(figures.alerts(names, [alerts_of(one.entry) for one in compared]), caption)
        )
    for one in facts.parity:
        if one.problem:
            parts.append(f'<p class="bad">{text(one.entry.path)}: not run: {text(one.problem)}</p>')
            continue
        caption = (
            f"{one.entry.path}: score by score, and how large errors are; the bound holds for all"
            " but one in 1,000 points of normal windows."
        )
        parts.append(figure(figures.parity(one), caption))
    return parts


def parity_cells(one: Parity) -> list[str]:
    """A row of the table of files."""
    entry = one.entry
    needs = ", ".join(f"{name} ≥ {least}" for name, least in entry.runtimes.items())
    cells = ["-"] * 3
    if not one.problem:
        p999 = np.quantile(one.error, 0.999, method="higher")
        worst = max(one.error.max(), one.distorted_error.max())
        cells = [f"{p999:.2g}", f"{one.bound:g}", f"{worst:.2g}"]
    taken, alerts = entry.parity.get("latency_ms"), alerts_of(entry)
    floating: Any = entry.parity.get("in_float", {})
    cells.append(f"{alerts['changed']} of {alerts['expected']}" if alerts else "-")
    cells.append(", ".join(floating.values()) or "-")
    cells.append("-" if taken is None else f"{taken:.3g}")
    return [entry.path, f"{entry.size:,}", entry.scheme, one.runtime or "-", *cells, needs]


def alerts_of(entry: ModelFile) -> dict[str, Any]:
    """How the file's alerts went with the detector's; empty in a bundle that does not say."""
    found: Any = entry.parity.get("alerts", {})
    return dict(found)


def words(value: Any) -> str:
    """A JSON value for a person."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {words(entry)}" for key, entry in value.items()) or "none"
    if isinstance(value, list):
        return "; ".join(words(entry) for entry in value) or "none"
    return str(value)


def text(value: str) -> str:
    """Escaped for HTML."""
    return html.escape(value)


def paragraph(words_: str) -> str:
    """A paragraph of plain words."""
    return f"<p>{text(words_)}</p>"


def figure(drawn: str, caption: str) -> str:
    """An SVG with its caption, which is also what a screen reader says."""
    named = drawn.replace("<svg", f'<svg role="img" aria-label="{text(caption)}"', 1)
    return f"<figure>{named}<figcaption>{text(caption)}</figcaption></figure>"


def pairs(rows: dict[str, str]) -> str:
    """A table of names and values."""
    body = (f"<tr><th>{text(key)}</th><td>{text(value)}</td></tr>" for key, value in rows.items())
    return f"<table>{''.join(body)}</table>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with a line of headings."""
    head = "".join(f"<th>{text(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
