"""What the gateway costs, beside a naive loop over the same model and a streaming neighbour.

    make demo                        # makes the bundle of UCR 135
    python benchmarks/runtime.py     # writes benchmarks/runtime.md; about 10 minutes
    python benchmarks/runtime.py BUNDLE NAME FOLDER    # beside the code in FOLDER, called NAME

Each part runs in a process of its own. Processor times are the kernel's for that process, so that
other work on the machine disturbs little but caches; rates are of processor time too.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from runtime_gateway import Cost, broker, feed, watch
from runtime_parts import CHUNK, PARTS, RATE_HZ, STREAMS

from edge_tsad.bundle import open_bundle

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "build" / "demo" / "blood-pressure-1.0.0.tsad"
SPAN_S = (50.0, 140.0)
SHORT_S = (9.0, 10.0)


def part(name: str, bundle: Path) -> dict[str, float]:
    """A part in a process of its own, on one core."""
    script = Path(__file__).with_name("runtime_parts.py")
    done = subprocess.run(
        [sys.executable, str(script), name, str(bundle)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout.splitlines()[-1]))


def gateways(folder: Path, bundle: Path, before: Path | None) -> dict[str, Cost]:
    """The costs of eight streams, now and before, and with four bundles."""
    copies = [folder / f"copy-{i}.tsad" for i in range(4)]
    for copy in copies:
        shutil.copy(bundle, copy)
    found: dict[str, Future[Cost]] = {}
    with broker() as port, ThreadPoolExecutor() as pool:
        for kind in ("csv", "mqtt"):
            running = {kind: pool.submit(watch, folder / kind, port, [bundle], SPAN_S, kind=kind)}
            if before is not None:
                where = folder / f"{kind}-before"
                running[where.name] = pool.submit(
                    watch, where, port, [bundle], SPAN_S, kind=kind, tree=before
                )
            stop = threading.Event()
            feeding = pool.submit(feed, port, stop)
            for cost in running.values():
                cost.result()
            stop.set()
            feeding.result()
            found |= running
        for name, bundles in (("one", [bundle]), ("several", copies)):
            found[name] = pool.submit(watch, folder / name, port, bundles, SHORT_S)
    return {name.replace("-", "_"): cost.result() for name, cost in found.items()}


def measure(bundle: Path, before: Path | None) -> dict[str, Any]:
    """All parts."""
    from edge_tsad.demo.data import blood_pressure  # noqa: PLC0415 - imports aeon

    with tempfile.TemporaryDirectory() as name:
        os.environ["SERIES"] = f"{name}/series.npy"
        np.save(os.environ["SERIES"], blood_pressure().values.astype(np.float32))
        found: dict[str, Any] = dict(gateways(Path(name), bundle, before))
        found |= {part_name: part(part_name, bundle) for part_name in PARTS}
    found["further"] = (found["several"].peak_mb - found["one"].peak_mb) / 3
    return found


def installed(name: str) -> str:
    """Name and version of a package."""
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} missing"


def verdict(*, good: bool) -> str:
    """Whether a target is met."""
    return "met" if good else "**missed**"


def compared(found: dict[str, Any]) -> list[str]:
    """The same gateways from another state of the code, which ran at the same time."""
    if "csv_before" not in found:
        return []
    lines = [
        f"The code of `{found['before']}`, run at the same time on the same machine:",
        "",
        "| | % of a core, before and now | times less | wake-ups/s, before and now |",
        "|---|---:|---:|---:|",
    ]
    for kind, title in (("csv", "from files"), ("mqtt", "over MQTT")):
        old, new = found[f"{kind}_before"], found[kind]
        lines.append(
            f"| {title} | {old.cpu:.2f} → {new.cpu:.2f} | {old.cpu / new.cpu:.2f} |"
            f" {old.wakes:.0f} → {new.wakes:.0f} |"
        )
    return [*lines, ""]


def report(found: dict[str, Any], bundle: Path, load: str) -> str:
    """The page."""
    csv, mqtt = found["csv"], found["mqtt"]
    timing = open_bundle(bundle).manifest.timing
    names = ("edge-tsad", "numpy", "ai-edge-litert", "onnxruntime", "stumpy", "paho-mqtt")
    replay, flat = found["replay"], found["flat"]
    spread = (flat["most"] - flat["least"]) / 2
    rows = [
        ("8 streams of one bundle at 10 Hz, from files", f"{csv.cpu:.2f} % of a core", "≤ 2 %",
         verdict(good=csv.cpu <= 2)),
        ("the same over MQTT, a connection for each source", f"{mqtt.cpu:.2f} % of a core", "≤ 2 %",
         verdict(good=mqtt.cpu <= 2)),
        ("peak memory of these runs, LiteRT", f"{csv.peak_mb:.1f} and {mqtt.peak_mb:.1f} MB",
         "≤ 70 MB", verdict(good=max(csv.peak_mb, mqtt.peak_mb) <= 70)),
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
        f"- Bundle of UCR 135, CoAD, one channel; window {timing.window}, hop {timing.hop}, delay"
        f" {timing.delay} points; the file that the gateway chooses by itself with LiteRT.",
        f"- {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()};"
        f" load average before and after: {load} (other work ran beside it).",
        f"- {', '.join(map(installed, names))}.",
        "- Eight streams: `edge-tsad run` as its own process, with a real mosquitto, scores"
        f" published once a second; processor time between {SPAN_S[0]:.0f} s and {SPAN_S[1]:.0f} s"
        " after it was ready, when all streams are warm. Rates are per second of processor time.",
        "",
        "| measured | found | target | |",
        "|---|---:|---:|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        *compared(found),
        "In the same run, one process each, every sample by itself:",
        "",
        "| | samples/s of a core | times the replay is faster | % of a core at"
        f" {STREAMS * RATE_HZ} samples/s | peak MB |",
        "|---|---:|---:|---:|---:|",
        f"| edge-tsad (replay; paced: the eight streams with broker and storage) |"
        f" {replay['median']:,.0f} | 1 | {csv.cpu:.2f} | {csv.peak_mb:.0f} |",
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
    """All of it."""
    bundle = Path(sys.argv[1]) if len(sys.argv) > 1 else BUNDLE
    name, tree = (sys.argv[2], Path(sys.argv[3])) if len(sys.argv) > 3 else ("", None)
    if not bundle.exists():
        sys.exit(f"{bundle} does not exist; run `make demo` first")
    load = f"{os.getloadavg()[0]:.1f}"
    found = measure(bundle.resolve(), tree)
    found["before"] = name
    text = report(found, bundle, f"{load}, {os.getloadavg()[0]:.1f}")
    (ROOT / "benchmarks" / "runtime.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
