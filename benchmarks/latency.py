"""How long one window takes on this machine, for each format and quantization scheme.

Run from the repository's root, on a machine that does little else:

    python benchmarks/latency.py

The nets are those of the default size, one for each of the ``--cases``, fitted for a few steps to
blood pressure (UCR 135 as aeon ships it; further channels are the same, later): weights decide what
scores are, not how long they take, so files are not held against the gate here. All files are timed
in turns in one process, one thread and one window at a time as in a live stream, so that whatever
else the machine does burdens them alike.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_tsad.demo.data import CHANNEL, blood_pressure
from edge_tsad.detectors.base import Detector
from edge_tsad.evaluation.report import machine
from edge_tsad.registry import BACKENDS, DETECTORS, EXPORTERS
from edge_tsad.runtime.backends.base import Backend
from edge_tsad.training.series import Series
from edge_tsad.training.threads import one_thread
from edge_tsad.training.windows import WindowSampler
from edge_tsad.types import Channel, FloatArray
from export.quantize import SCHEMES
from export.windows import Windows, distorted

WARM_UP = 100
BLOCK = 10
"""Windows of one file before it is the next one's turn."""
CALIBRATION = 64
TARGET_MS = 0.3
"""Of a window of one channel on one thread: the wish of whoever runs many streams on a gateway."""

CASES = ["coad:1:600", "cmdml:1:600", "coad:8:128", "cmdml:8:128"]
BASES = ("litert fp32", "onnxruntime fp32")


SHIFT = 37
"""Points by which each further channel lags behind the one before."""


@dataclass(frozen=True)
class Case:
    """A net to time: ``text`` is DETECTOR:CHANNELS:WINDOW."""

    text: str
    detector: Detector
    windows: Windows


@dataclass(frozen=True)
class File:
    """A file under test; ``wall`` and ``cpu`` are milliseconds of single windows."""

    case: Case
    label: str
    size: int
    backend: Backend
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def main() -> None:
    """Fit, convert, time, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="DETECTOR:CHANNELS:WINDOW")
    parser.add_argument("--steps", type=int, default=20, help="steps of the fit")
    parser.add_argument("--seconds", type=float, default=30.0, help="for timing each case")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latency.md"))
    given = parser.parse_args()
    cases = [fitted(text, given.steps) for text in given.cases]
    files = [file for case in cases for file in converted(case)]
    load = os.getloadavg()[0]
    measure(files, given.seconds * len(cases))
    command = (
        f"python benchmarks/latency.py --cases {' '.join(given.cases)} --steps {given.steps}"
        f" --seconds {given.seconds:g}"
    )
    lines = page(command, files, load)
    given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


@one_thread()
def fitted(text: str, steps: int) -> Case:
    """The detector and windows of the series it was fitted to."""
    name, channels, window = text.split(":")
    wave = blood_pressure().values
    values = np.stack([np.roll(wave, SHIFT * i) for i in range(int(channels))], axis=1)
    index = np.arange(len(values), dtype=np.int64)
    named = tuple(Channel(f"{CHANNEL}{i}") for i in range(int(channels)))
    history = Series(index * 10**9, values, named, 10**9, name="UCR 135")
    timing = DETECTORS[name].plan(history, window=int(window))
    detector = DETECTORS[name].fit(history, timing, seed=0, steps=steps)
    sampler = WindowSampler(history.segments(timing.window), timing.window)
    return Case(text, detector, Windows(*sampler.spread(CALIBRATION)))


def converted(case: Case) -> list[File]:
    """A file for each format and scheme."""
    period = case.detector.timing.period
    calibration = Windows.join([case.windows, distorted(case.windows, period, 0)])
    files = []
    for name in EXPORTERS:
        exporter = EXPORTERS[name]()
        original = exporter.convert(case.detector)
        runtime = next(iter(exporter.runtimes))
        for scheme in exporter.schemes:
            data = exporter.quantize(original, scheme, calibration)
            label = f"{runtime} {SCHEMES[scheme].label}"
            files.append(File(case, label, len(data), BACKENDS[runtime](data, threads=1)))
    return files


def measure(files: list[File], seconds: float) -> None:
    """Time single windows, the files in turns."""
    for file in files:
        for i in range(WARM_UP):
            file.backend.score(*one_window(file, i))
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for file in files:
            for _ in range(BLOCK):
                window, observed = one_window(file, len(file.wall))
                wall, cpu = time.perf_counter(), time.process_time()
                file.backend.score(window, observed)
                file.cpu.append(1e3 * (time.process_time() - cpu))
                file.wall.append(1e3 * (time.perf_counter() - wall))


def one_window(file: File, turn: int) -> tuple[FloatArray, FloatArray]:
    """The values and the mask of the next window of a file's case."""
    windows = file.case.windows
    row = slice(turn % len(windows), turn % len(windows) + 1)
    return windows.window[row], windows.observed[row]


def page(command: str, files: list[File], load: float) -> list[str]:
    """The results as Markdown."""
    lines = [
        "# Latency of one window",
        "",
        f"`{command}`",
        "",
        "- one thread; fitted for a few steps only (weights do not change the time)",
        f"- {min(len(file.wall) for file in files):,} windows of each file, in turns of {BLOCK};"
        f" load of the machine before: {load:.1f}",
        *machine(),
    ]
    for case in dict.fromkeys(file.case.text for file in files):
        lines += ["", *section([file for file in files if file.case.text == case])]
    return lines


def section(files: list[File]) -> list[str]:
    """The table of one case, and whether it meets the target."""
    detector = files[0].case.detector
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
    return [
        f"## {detector.name}, channels: {detector.channels}, points: {detector.timing.window}",
        "",
        f"{detector.parameter_count():,} parameters.",
        "",
        *("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *cells)),
        *(verdict(median) if detector.channels == 1 else []),
    ]


def verdict(median: dict[str, float]) -> list[str]:
    """Whether the fastest int8 file is as fast as wanted."""
    int8 = {label: ms for label, ms in median.items() if label.startswith("litert int8")}
    best = min(int8, key=lambda label: int8[label])
    met = "Met" if int8[best] <= TARGET_MS else "Missed"
    return [
        "",
        f"Target: LiteRT int8 at most {TARGET_MS:g} ms a window (median). {met}: {best} takes"
        f" {int8[best]:.3f} ms.",
    ]


if __name__ == "__main__":
    main()
