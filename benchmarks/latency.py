"""How long one window takes on this machine, for each format and quantization scheme.

Run from the repository's root, on a machine that does little else:

    python benchmarks/latency.py

The net is CoAD of the default size for one channel, fitted for a few steps to blood pressure (UCR
135 as aeon ships it): weights decide what scores are, not how long they take, so files are not held
against the gate here. All files are timed in turns in one process, one thread and one window at a
time as in a live stream, so that whatever else the machine does burdens them alike.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_tsad.demo.data import CHANNEL, blood_pressure
from edge_tsad.detectors.coad import CoAD
from edge_tsad.evaluation.report import machine
from edge_tsad.registry import BACKENDS, EXPORTERS
from edge_tsad.runtime.backends.base import Backend
from edge_tsad.training.series import Series
from edge_tsad.training.threads import one_thread
from edge_tsad.training.windows import WindowSampler
from edge_tsad.types import Channel
from export.quantize import SCHEMES
from export.windows import Windows, distorted

WARM_UP = 100
BLOCK = 10
"""Windows of one file before it is the next one's turn."""
CALIBRATION = 64
TARGET_MS = 0.3
BASES = ("litert fp32", "onnxruntime fp32")


@dataclass(frozen=True)
class File:
    """A file under test; ``wall`` and ``cpu`` are milliseconds of single windows."""

    label: str
    size: int
    backend: Backend
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def main() -> None:
    """Fit, convert, time, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--window", type=int, default=600, help="points, a multiple of 8")
    parser.add_argument("--steps", type=int, default=20, help="steps of the fit")
    parser.add_argument("--seconds", type=float, default=30.0, help="for timing, in all")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latency.md"))
    given = parser.parse_args()
    detector, windows = fitted(given.window, given.steps)
    files = converted(detector, windows)
    load = os.getloadavg()[0]
    measure(files, windows, given.seconds)
    command = (
        f"python benchmarks/latency.py --window {given.window} --steps {given.steps}"
        f" --seconds {given.seconds:g}"
    )
    lines = page(command, detector, files, load)
    given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


@one_thread()
def fitted(window: int, steps: int) -> tuple[CoAD, Windows]:
    """The detector and windows of the series it was fitted to."""
    values = blood_pressure().values[:, None]
    index = np.arange(len(values), dtype=np.int64)
    history = Series(index * 10**9, values, (Channel(CHANNEL),), 10**9, name="UCR 135")
    timing = CoAD.plan(history, window=window)
    detector = CoAD.fit(history, timing, seed=0, steps=steps)
    sampler = WindowSampler(history.segments(window), window)
    return detector, Windows(*sampler.spread(CALIBRATION))


def converted(detector: CoAD, windows: Windows) -> list[File]:
    """A file for each format and scheme."""
    calibration = Windows.join([windows, distorted(windows, detector.timing.period, 0)])
    files = []
    for name in EXPORTERS:
        exporter = EXPORTERS[name]()
        original = exporter.convert(detector)
        runtime = next(iter(exporter.runtimes))
        for scheme in exporter.schemes:
            data = exporter.quantize(original, scheme, calibration)
            label = f"{runtime} {SCHEMES[scheme].label}"
            files.append(File(label, len(data), BACKENDS[runtime](data, threads=1)))
    return files


def measure(files: list[File], windows: Windows, seconds: float) -> None:
    """Time single windows, the files in turns."""
    rows = [slice(i, i + 1) for i in range(len(windows))]
    for file in files:
        for i in range(WARM_UP):
            row = rows[i % len(rows)]
            file.backend.score(windows.window[row], windows.observed[row])
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for file in files:
            for _ in range(BLOCK):
                row = rows[len(file.wall) % len(rows)]
                wall, cpu = time.perf_counter(), time.process_time()
                file.backend.score(windows.window[row], windows.observed[row])
                file.cpu.append(1e3 * (time.process_time() - cpu))
                file.wall.append(1e3 * (time.perf_counter() - wall))


def page(command: str, detector: CoAD, files: list[File], load: float) -> list[str]:
    """The results as Markdown."""
    median = {file.label: float(np.median(file.wall)) for file in files}
    cells = [
        [
            file.label,
            f"{file.size:,}",
            f"{median[file.label]:.3f}",
            *(f"{np.quantile(file.wall, q):.3f}" for q in (0.1, 0.99)),
            f"{np.median(file.cpu):.3f}",
            *(f"{median[file.label] / median[base]:.2f}" for base in BASES),
        ]
        for file in files
    ]
    header = ["file", "bytes", "ms, median", "10 %", "99 %", "CPU ms, median"]
    header += [f"of {base}" for base in BASES]
    int8 = {label: ms for label, ms in median.items() if label.startswith("litert int8")}
    best = min(int8, key=lambda label: int8[label])
    verdict = "Met" if int8[best] <= TARGET_MS else "Missed"
    return [
        "# Latency of one window",
        "",
        f"`{command}`",
        "",
        f"- {detector.name}, {detector.parameter_count():,} parameters, one channel, windows of"
        f" {detector.timing.window} points, one thread; fitted for a few steps only (weights do not"
        " change the time)",
        f"- {min(len(file.wall) for file in files):,} windows of each file, in turns of {BLOCK};"
        f" load of the machine before: {load:.1f}",
        *machine(),
        "",
        *("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *cells)),
        "",
        f"Target: LiteRT int8 at most {TARGET_MS:g} ms a window (median). {verdict}: {best} takes"
        f" {int8[best]:.3f} ms.",
    ]


if __name__ == "__main__":
    main()
