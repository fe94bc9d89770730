"""What the gateway costs, beside a naive loop over the same model and a streaming neighbour.

    make demo                        # makes the bundle of UCR 135
    python benchmarks/runtime.py     # writes benchmarks/runtime.md; about 10 minutes

Each part runs in a process of its own. Processor times are the kernel's for that process, so that
other work on the machine disturbs little but caches; rates are of processor time too.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from edge_tsad.bundle import open_bundle
from edge_tsad.config import parse_config
from edge_tsad.runtime.opening import StreamOpener

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "build" / "demo" / "blood-pressure-1.0.0.tsad"
STREAMS, RATE_HZ = 8, 10
SHORT_S, LONG_S = 30, 150
CHUNK = 1024
MILLION = 1_000_000
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


def part(name: str, bundle: Path) -> dict[str, float]:
    """A part in a process of its own, on one core."""
    done = subprocess.run(
        [sys.executable, __file__, name, str(bundle)], check=True, capture_output=True, text=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def gateway(folder: Path, port: int, bundles: list[Path], seconds: int) -> dict[str, Any]:
    """``edge-tsad run`` with eight streams at 10 Hz; what ``--stats`` says."""
    rows = "\n".join(f"{value:.6g}" for value in series(seconds * RATE_HZ))
    (folder / "x.csv").write_text("pressure\n" + rows + "\n")
    text = f'site = "b"\ndevice = "b"\ndata_dir = "data"\nbroker.url = "mqtt://127.0.0.1:{port}"\n'
    for i in range(STREAMS):
        text += f'[[streams]]\nname = "s{i}"\nbundle = "{bundles[i % len(bundles)]}"\n'
        text += (
            f'backend = "litert"\nsource = {{ type = "csv", path = "x.csv", speed = {RATE_HZ} }}\n'
        )
    (folder / "gateway.toml").write_text(text)
    shutil.rmtree(folder / "data", ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "edge_tsad", "run", "gateway.toml", "--stats", "stats.json"],
        check=True, cwd=folder, timeout=seconds + 120,
    )  # fmt: skip
    return dict(json.loads((folder / "stats.json").read_text()))


def measure(bundle: Path) -> dict[str, Any]:
    """All parts."""
    from edge_tsad.demo.data import blood_pressure  # noqa: PLC0415 - imports aeon

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SERIES"] = str(folder / "series.npy")
        np.save(os.environ["SERIES"], blood_pressure().values.astype(np.float32))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        path = "/usr/sbin:" + os.environ["PATH"]
        broker = subprocess.Popen(
            [shutil.which("mosquitto", path=path) or "mosquitto", "-p", str(port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        copies = [folder / f"copy-{i}.tsad" for i in range(4)]
        for copy in copies:
            shutil.copy(bundle, copy)
        try:
            short = gateway(folder, port, [bundle], SHORT_S)
            long = gateway(folder, port, [bundle], LONG_S)
            several = gateway(folder, port, copies, SHORT_S)
        finally:
            broker.terminate()
            broker.wait()
        parts = {name: part(name, bundle) for name in PARTS}
    span = long["duration_s"] - short["duration_s"]
    return {
        "cpu": 100 * (long["cpu_s"] - short["cpu_s"]) / span,
        "peak": long["peak_rss_mb"],
        "further": (several["peak_rss_mb"] - short["peak_rss_mb"]) / 3,
        "p50_ms": long["streams"]["s0"]["latency_ms"]["p50"],
        **parts,
    }


PARTS = {
    "replay": part_replay,
    "flat": part_flat,
    "naive_litert": part_naive_litert,
    "naive_ort": part_naive_ort,
    "stumpi": part_stumpi,
}


def installed(name: str) -> str:
    """Name and version of a package."""
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} missing"


def verdict(*, good: bool) -> str:
    """Whether a target is met."""
    return "met" if good else "**missed**"


def report(found: dict[str, Any], bundle: Path, load: str) -> str:
    """The page."""
    timing = open_bundle(bundle).manifest.timing
    names = ("edge-tsad", "numpy", "ai-edge-litert", "onnxruntime", "stumpy", "paho-mqtt")
    replay, flat = found["replay"], found["flat"]
    spread = (flat["most"] - flat["least"]) / 2
    rows = [
        ("8 streams of one bundle at 10 Hz", f"{found['cpu']:.2f} % of a core", "≤ 2 %",
         verdict(good=found["cpu"] <= 2)),
        ("peak memory of that run, LiteRT", f"{found['peak']:.1f} MB", "≤ 70 MB",
         verdict(good=found["peak"] <= 70)),
        ("each further bundle", f"{found['further']:.1f} MB", "≤ 5 MB",
         verdict(good=found["further"] <= 5)),
        (f"replay through `extend`, chunks of {CHUNK:,}, hop {timing.hop}",
         f"{replay['median']:,.0f} samples/s ({replay['least']:,.0f}…{replay['most']:,.0f})",
         "≥ 20,000", verdict(good=replay["median"] >= 20_000)),
        ("memory over 2 million samples, after the first 100,000",
         f"{flat['least']:.1f}…{flat['most']:.1f} MB", "±2 MB", verdict(good=spread <= 2)),
    ]  # fmt: skip
    lines = [
        "# What the gateway costs",
        "",
        "`python benchmarks/runtime.py`",
        "",
        f"- Bundle of `make demo`: UCR 135, CoAD, one channel; window {timing.window}, hop"
        f" {timing.hop}, delay {timing.delay} points; float32; {found['p50_ms']:.2f} ms a window.",
        f"- {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()};"
        f" load average before and after: {load} (other work ran beside it).",
        f"- {', '.join(map(installed, names))}.",
        "- Eight streams: `edge-tsad run` as its own process, with a real mosquitto, scores"
        f" published once a second; the difference of a run of {LONG_S} s and one of {SHORT_S} s,"
        " so that the start does not count. Rates are per second of processor time.",
        "",
        "| measured | found | target | |",
        "|---|---:|---:|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "In the same run, one process each, every sample by itself:",
        "",
        "| | samples/s of a core | times the replay is faster | % of a core at"
        f" {STREAMS * RATE_HZ} samples/s | peak MB |",
        "|---|---:|---:|---:|---:|",
        f"| edge-tsad (replay; paced: the eight streams with broker and storage) |"
        f" {replay['median']:,.0f} | 1 | {found['cpu']:.2f} | {found['peak']:.0f} |",
    ]
    titles = {
        "naive_litert": "naive loop, LiteRT as it comes",
        "naive_ort": "naive loop, ONNX Runtime as it comes",
        "stumpi": "stumpy `stumpi`, history of 1,200 points",
    }
    for name, title in titles.items():
        one = found[name]
        ratio = replay["median"] / one["rate"]
        lines.append(
            f"| {title} | {one['rate']:,.0f} | {ratio:.1f} | {one['paced']:.2f} |"
            f" {one['peak']:.0f} |"
        )
    lines += [
        "",
        "The naive loop shifts an array and computes the whole window with every sample, in one"
        " stream, without resampling, thresholds, storage or a broker. The matrix profile is"
        " another detector; it stands here for what a streaming neighbour costs.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """All of it, or, in a process of its own, one part."""
    if len(sys.argv) > 2:
        print(json.dumps(PARTS[sys.argv[1]](Path(sys.argv[2]))))
        return
    bundle = Path(sys.argv[1]) if len(sys.argv) > 1 else BUNDLE
    if not bundle.exists():
        sys.exit(f"{bundle} does not exist; run `make demo` first")
    before = f"{os.getloadavg()[0]:.1f}"
    found = measure(bundle)
    text = report(found, bundle, f"{before}, {os.getloadavg()[0]:.1f}")
    (ROOT / "benchmarks" / "runtime.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
