"""The report's plots as SVG elements without ids of their own, fonts, scripts or addresses."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from edge_tsad.runtime.threshold import INTERVAL, Budget, Threshold
from edge_tsad.types import Channel, FloatArray
from export.report.facts import Example, Parity

__all__ = ["alerts", "example", "loss", "openings", "parity", "scores"]

STYLE: dict[Any, Any] = {
    # Text stays text: smaller, searchable, and in the reader's own font.
    "svg.fonttype": "none",
    "svg.hashsalt": "edge-tsad",
    "text.parse_math": False,  # names of channels may hold a dollar sign
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "legend.frameon": False,
    "lines.linewidth": 1.0,
}
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
WIDTH = 9.0
STRIPPED = re.compile(
    r"<metadata>.*?</metadata>|<!--.*?-->| xmlns(:\w+)?=\"[^\"]*\"| id=\"[\w.]+?_\d+\"", re.DOTALL
)

MOST_BINS = 900
MOST_CHANNELS = 4
MOST_DOTS = 500
LEAST_ERROR = 1e-8
LEVELS = 1 - np.logspace(0, -3.5, 120)
BLUE, ORANGE, GREEN, RED, GREY = "#1f6fb2", "#d9822b", "#2f8f4e", "#c0392b", "0.45"


@mpl.rc_context(STYLE)
def loss(curve: Sequence[float]) -> str:
    """The loss over the fit; ``curve`` holds means of stretches of equal length."""
    figure = Figure((WIDTH, 2.4), layout="constrained")
    axes = figure.subplots()
    done = 100 * np.arange(1, len(curve) + 1) / len(curve)
    axes.plot(done, curve, color=BLUE, marker=".", markersize=3)
    axes.set_xlabel("of the fit (%)")
    axes.set_ylabel("loss")
    return svg(figure)


@mpl.rc_context(STYLE)
def scores(blocks: Sequence[FloatArray], threshold: Threshold, band: tuple[float, float]) -> str:
    """Calibration scores in time and as a histogram, with the threshold and its ``band``."""
    figure = Figure((WIDTH, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    every = np.concatenate(blocks)
    at, low, high = envelope(every)
    left.fill_between(at, low, high, color=BLUE, linewidth=0.4, label="score, least to most")
    for end in np.cumsum([len(block) for block in blocks])[:-1]:
        left.axvline(end, color=GREY, linestyle=":", linewidth=0.8)
    left.set_xlabel("point of the history")
    left.set_ylabel("score")
    known = every[np.isfinite(every)]
    right.hist(known, bins=60, orientation="horizontal", color=BLUE, log=True)
    right.set_xlabel("points")
    plain(right.xaxis)
    for axes in (left, right):
        axes.axhspan(*band, color=RED, alpha=0.15, linewidth=0)
        axes.axhline(threshold.value, color=RED, linestyle="--", label="threshold")
        axes.axhline(threshold.median, color=GREY, linestyle="--", label="median")
    legend(left)
    return svg(figure)


@mpl.rc_context(STYLE)
def openings(threshold: Threshold, budget: Budget) -> str:
    """Alert openings in the budget's span against the threshold: seen, and as the tail has it."""
    tail, points = threshold.tail, budget.points
    figure = Figure((WIDTH, 2.8), layout="constrained")
    axes = figure.subplots()
    peaks = np.sort(np.array(tail.peaks, np.float64))[::-1]
    if len(peaks):
        counted = np.arange(1, len(peaks) + 1) * points / tail.points
        axes.step(peaks, counted, where="pre", color=BLUE, label="seen in calibration")
    if threshold.state != "UNCALIBRATED":
        grid = np.linspace(tail.level, max(threshold.value, tail.highest) * 1.1, 80)
        rates = np.array([tail.rates(float(value)) for value in grid]) * points
        low, middle, high = np.quantile(rates, [INTERVAL[0], 0.5, INTERVAL[1]], axis=1)
        axes.fill_between(grid, low, high, color=ORANGE, alpha=0.25, label="90 % interval")
        axes.plot(grid, middle, color=ORANGE, label="fitted tail")
        axes.axhline(budget.openings, color=GREY, linestyle=":", label="budget")
        axes.set_ylim(bottom=budget.openings / 30)
    axes.axvline(threshold.value, color=RED, linestyle="--", label="threshold")
    axes.set_yscale("log")
    plain(axes.yaxis)
    axes.set_xlabel("threshold (score)")
    axes.set_ylabel("openings")
    legend(axes)
    return svg(figure)


@mpl.rc_context(STYLE)
def example(one: Example, channels: Sequence[Channel], threshold: Threshold) -> str:
    """Seen and expected values of a window, and its score below; the worst channels only."""
    worst = np.argsort(-one.channel_score.max(axis=0), kind="stable")[:MOST_CHANNELS]
    rows = sorted(int(channel) for channel in worst)
    figure = Figure((WIDTH, 1.3 * len(rows) + 1.5), layout="constrained")
    every = figure.subplots(len(rows) + 1, 1, sharex=True, squeeze=False)[:, 0]
    for axes, row in zip(every, rows, strict=False):
        seen = np.where(one.observed[:, row] > 0, one.seen[:, row], np.nan)
        axes.plot(seen, color=BLUE, label="seen")
        if one.expected is not None:
            axes.plot(one.expected[:, row], color=GREEN, label="expected")
        unit = channels[row].unit
        axes.set_ylabel(channels[row].name + (f" ({unit})" if unit else ""))
    legend(every[0])
    every[-1].plot(one.score, color=ORANGE, label="score of this window")
    every[-1].axhline(threshold.value, color=RED, linestyle="--", label="threshold")
    legend(every[-1])
    every[-1].set_ylabel("score")
    every[-1].set_xlabel("point of the window")
    return svg(figure)


@mpl.rc_context(STYLE)
def parity(one: Parity) -> str:
    """Scores of the file against the detector's, and how often an error of some size is reached."""
    figure = Figure((WIDTH, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    chosen = dots(one.detector)
    left.plot(one.detector[chosen], one.file[chosen], ".", color=BLUE, markersize=3)
    span = [0.0, float(one.detector.max())]
    left.plot(span, span, color=GREY, linestyle=":")
    left.set_xlabel("score of the detector in float32")
    left.set_ylabel("score of the file")
    for error, color, label in (
        (one.error, BLUE, "normal windows"),
        (one.distorted_error, ORANGE, "distorted windows"),
    ):
        sizes = np.maximum(np.quantile(error, LEVELS), LEAST_ERROR)
        right.plot(sizes, 1 - LEVELS, color=color, label=label)
    if np.isfinite(one.bound):
        right.axvline(one.bound, color=RED, linestyle="--", label="bound")
        right.plot(one.bound, 1e-3, "v", color=RED, markersize=4)
    right.set_xscale("log")
    right.set_yscale("log")
    plain(right.xaxis)
    plain(right.yaxis)
    right.set_xlabel("error (share of median to threshold)")
    right.set_ylabel("share of points above")
    legend(right)
    return svg(figure)


@mpl.rc_context(STYLE)
def alerts(names: Sequence[str], counts: Sequence[Mapping[str, int]]) -> str:
    """Bars of alerts for each file: given by both, by the detector alone, by the file alone."""
    figure = Figure((WIDTH, 0.35 * len(names) + 1.1), layout="constrained")
    axes = figure.subplots()
    both = np.array([count["matched"] for count in counts])
    missed = np.array([count["expected"] for count in counts]) - both
    added = np.array([count["found"] for count in counts]) - both
    axes.barh(names, both, color=BLUE, label="both")
    axes.barh(names, missed, left=both, color=RED, label="the detector alone")
    axes.barh(names, added, left=both + missed, color=ORANGE, label="the file alone")
    for row, changed in enumerate(missed + added):
        axes.annotate(f" {changed} changed", (both[row] + changed, row), va="center", fontsize=8)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_xlabel("alerts")
    axes.margins(x=0.12)
    legend(axes)
    return svg(figure)


def legend(axes: Axes) -> None:
    """Names of the lines above the plot, where they hide nothing."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.97), ncols=4, fontsize=8, borderpad=0)


def plain(axis: Axis) -> None:
    """Powers of ten as plain numbers; others without any."""
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def envelope(
    values: FloatArray,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Middle, least and largest value of at most ``MOST_BINS`` stretches; NaN where all are."""
    parts = np.array_split(np.arange(len(values)), min(MOST_BINS, len(values)))
    middle = np.array([float(part.mean()) for part in parts])
    kept = [values[part][np.isfinite(values[part])] for part in parts]
    least = np.array([part.min() if len(part) else np.nan for part in kept], np.float32)
    most = np.array([part.max() if len(part) else np.nan for part in kept], np.float32)
    return middle, least, most


def dots(score: FloatArray) -> npt.NDArray[np.int64]:
    """Positions of points spread evenly over the sorted ``score``, so that the few high ones show.

    Half of them are the highest there are.
    """
    order = np.argsort(score, kind="stable")
    top = order[-MOST_DOTS // 2 :]
    spread = order[np.linspace(0, len(order) - 1, MOST_DOTS // 2).astype(int)]
    return np.unique(np.concatenate([spread, top]))


def svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element to put into HTML."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=NO_METADATA)
    text = buffer.getvalue()
    return STRIPPED.sub("", text[text.index("<svg") :]).strip()
