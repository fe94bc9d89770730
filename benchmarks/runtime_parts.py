"""Parts of ``benchmarks/runtime.py``, each run in a process of its own: replay, memory, neighbours.

    python benchmarks/runtime_parts.py NAME BUNDLE     # SERIES names the .npy file with the values

Prints one JSON object. Rates are of processor time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge_tsad.bundle import open_bundle
from edge_tsad.config import parse_config
from edge_tsad.runtime.opening import StreamOpener

__all__ = ["CHUNK", "HISTORY", "PARTS", "RATE_HZ", "STREAMS", "series"]

ROOT = Path(__file__).resolve().parents[1]
STREAMS, RATE_HZ = 8, 10
CHUNK = 1024
MB = 1e6
HISTORY = 1200


def rss_mb(key: str = "VmRSS") -> float:
    """Memory of this process, now or (``VmHWM``) at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024 / MB


def series(points: int) -> np.ndarray:
    """UCR 135, again and again."""
    return np.resize(np.load(os.environ["SERIES"]), points)


def model_file(bundle: Path, suffix: str) -> bytes:
    """The bytes of the float32 file with this suffix."""
    opened = open_bundle(bundle)
    name = next(f.path for f in opened.manifest.files if f.path.endswith(f"fp32.{suffix}"))
    return opened.read(name)


def pipeline(bundle: Path) -> Any:
    """A stream as the gateway has it, with LiteRT."""
    text = f'site = "b"\ndevice = "b"\n[[streams]]\nname = "s"\nbundle = "{bundle}"\n'
    text += 'backend = "litert"\nsource = { type = "stdin" }\n'
    (stream,) = StreamOpener(parse_config(text, ROOT)).open_all()
    return stream.pipeline()


def part_replay(bundle: Path) -> dict[str, float]:
    """Samples a second of one core through ``extend``, over five rounds."""
    points = 100 * CHUNK
    values = series(points).reshape(-1, 1)
    times = np.arange(points, dtype=np.int64) * 10**9
    stream = pipeline(bundle)
    rates = []
    for i in range(0, points, 20 * CHUNK):
        begun = time.process_time()
        for j in range(i, i + 20 * CHUNK, CHUNK):
            stream.extend(times[j : j + CHUNK], values[j : j + CHUNK])
        rates.append(20 * CHUNK / (time.process_time() - begun))
    return {"median": float(np.median(rates)), "least": min(rates), "most": max(rates)}


def part_flat(bundle: Path) -> dict[str, float]:
    """Memory over two million samples, looked at every 100,000 after the first."""
    values = series(100_000).reshape(-1, 1)
    stream = pipeline(bundle)
    seen = []
    for i in range(20):
        times = (np.arange(len(values), dtype=np.int64) + i * len(values)) * 10**9
        for j in range(0, len(values), CHUNK):
            stream.extend(times[j : j + CHUNK], values[j : j + CHUNK])
        seen.append(rss_mb())
    later = seen[1:]
    return {"first": seen[0], "least": min(later), "most": max(later), "last": later[-1]}


def part_naive_litert(bundle: Path) -> dict[str, float]:
    """The window shifted and computed anew with every sample, the runtime as it comes."""
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - as below

    interpreter = Interpreter(model_content=model_file(bundle, "tflite"))
    run = interpreter.get_signature_runner()
    return naive(lambda window, observed: run(window=window, observed=observed), bundle)


def part_naive_ort(bundle: Path) -> dict[str, float]:
    """As above with ONNX Runtime, whose threads spin by default."""
    import onnxruntime  # noqa: PLC0415 - in its own process only

    session = onnxruntime.InferenceSession(
        model_file(bundle, "onnx"), providers=["CPUExecutionProvider"]
    )
    return naive(
        lambda window, observed: session.run(None, {"window": window, "observed": observed}), bundle
    )


def naive(infer: Any, bundle: Path) -> dict[str, float]:
    """Speed and cost of a loop around ``infer(window, observed)``."""
    length = open_bundle(bundle).manifest.timing.window
    window = np.zeros((1, length, 1), np.float32)
    observed = np.ones_like(window)
    values = series(3000)

    def step(value: np.float32) -> None:
        window[0] = np.roll(window[0], -1, axis=0)
        window[0, -1, 0] = value
        infer(window, observed)

    for value in values[:200]:
        step(value)
    begun = time.process_time()
    for value in values[200:2200]:
        step(value)
    rate = 2000 / (time.process_time() - begun)
    return {"rate": rate, "paced": paced(step, values), "peak": rss_mb("VmHWM")}


def paced(step: Any, values: np.ndarray) -> float:
    """Processor time, in % of a core, of so many samples a second as the gateway was given."""
    pace_s, seconds = 1 / (STREAMS * RATE_HZ), 15
    begun_s, begun = time.monotonic(), time.process_time()
    for i in range(seconds * STREAMS * RATE_HZ):
        time.sleep(max(0.0, begun_s + i * pace_s - time.monotonic()))
        step(values[i % len(values)])
    return 100 * (time.process_time() - begun) / (time.monotonic() - begun_s)


def part_stumpi(bundle: Path) -> dict[str, float]:
    """The streaming matrix profile of stumpy over as much history as the detector was fitted on."""
    import stumpy  # noqa: PLC0415 - in its own process only

    period = open_bundle(bundle).manifest.timing.period
    values = series(6000).astype(np.float64)
    stream = stumpy.stumpi(values[:HISTORY], m=period, egress=True)

    def step(value: np.float32) -> None:
        stream.update(float(value))

    for value in values[HISTORY : HISTORY + 50]:
        step(value)
    begun = time.process_time()
    for value in values[HISTORY + 50 : HISTORY + 2050]:
        step(value)
    rate = 2000 / (time.process_time() - begun)
    return {"rate": rate, "paced": paced(step, values), "peak": rss_mb("VmHWM")}


PARTS = {
    "replay": part_replay,
    "flat": part_flat,
    "naive_litert": part_naive_litert,
    "naive_ort": part_naive_ort,
    "stumpi": part_stumpi,
}


if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]](Path(sys.argv[2]))))
