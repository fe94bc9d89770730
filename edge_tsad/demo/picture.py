"""The demo's picture: signal, what was expected, score, threshold and alerts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_tsad.demo.story import Outcome
from edge_tsad.runtime.backends.select import open_file
from edge_tsad.runtime.scorer import StreamScorer
from edge_tsad.types import Cells, FloatArray, Scores

__all__ = ["draw", "score_again"]

SHOWN_PERIODS = 12
"""Dominant periods around the labelled anomaly in the close-up."""


def score_again(outcome: Outcome, values: FloatArray) -> Scores:
    """The scores of ``values`` f32[n] by the code, the file and the runtime of the gateway."""
    bundle, manifest = outcome.bundle, outcome.bundle.manifest
    (stream,) = outcome.stats["streams"].values()
    file = next(file for file in manifest.files if file.path == stream["model"])
    backend = open_file(stream["backend"], file, bundle.read)
    scorer = StreamScorer(manifest.timing, len(manifest.channels), backend)
    index = np.arange(len(values), dtype=np.int64)
    observed = np.ones((len(values), 1), np.float32)
    return scorer.extend(Cells(index, values[:, None], observed))


def draw(outcome: Outcome, threshold: float, path: Path) -> None:
    """Write the picture as PNG: the whole replay above, the labelled anomaly close below."""
    import matplotlib  # noqa: PLC0415 - slow to import, and only the picture needs it

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    recording = outcome.recording
    scores = score_again(outcome, recording.values[outcome.offset :])
    k = scores.index + outcome.offset
    period = outcome.bundle.manifest.timing.period
    middle = (recording.begin + recording.end) // 2
    close = (middle - SHOWN_PERIODS * period // 2, middle + SHOWN_PERIODS * period // 2)
    figure, axes = plt.subplots(4, 1, figsize=(11, 9), height_ratios=[2, 1, 2, 1])
    for signal, score, span in ((*axes[:2], (k[0], k[-1])), (*axes[2:], close)):
        if scores.expected is not None:
            signal.plot(k, scores.expected[:, 0], color="C2", linewidth=0.8, label="expected")
        signal.plot(k, scores.values[:, 0], color="C0", linewidth=0.8, label="seen")
        signal.set_ylabel("pressure")
        score.plot(k, scores.score, color="C1", linewidth=0.8, label="score")
        score.axhline(threshold, color="0.4", linestyle="--", linewidth=0.8, label="threshold")
        score.set_ylabel("score")
        for axis in (signal, score):
            axis.axvspan(recording.begin, recording.end, color="C3", alpha=0.3, label="labelled")
            for number, (begin, end) in enumerate(_spans(outcome)):
                label = "alert" if number == 0 else None
                axis.axvspan(begin, end, color="C4", alpha=0.15, label=label)
            axis.set_xlim(*span)
            axis.legend(loc="upper right", fontsize=7, ncols=5)
    axes[0].set_title(f"{recording.name}: the whole replay, and the labelled anomaly close")
    axes[3].set_xlabel("point of the recording")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _spans(outcome: Outcome) -> list[tuple[int, int]]:
    """First and last point of each alert in the recording's own count."""
    begins = {a["id"]: a["onset_index"] for a in outcome.alerts if a["type"] == "new"}
    ends = {a["id"]: a["index"] for a in outcome.alerts}
    return [(begin + outcome.offset, ends[name] + outcome.offset) for name, begin in begins.items()]
