"""What each format and scheme costs: the gate's verdict, size, errors, alerts, latency and VUS-PR.

Run from the repository's root:

    python benchmarks/quantization.py DATA UCR:135 SKAB:valve1__0 --models MODELS --out results.csv

DATA is a folder of labelled sets (``<set>.npz`` with ``<set>.json``, see ``edge_tsad.evaluation``);
series are ``SET:BEGINNING`` of a name. A model in MODELS is used again, others are trained and put
there. Rows are appended as they come; what OUT has already is not done again. The summary goes to
OUT with the suffix ``.md``.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from trained import model_of

from edge_tsad.errors import EdgeTsadError
from edge_tsad.evaluation.labelled import LabelledSeries
from edge_tsad.evaluation.metrics import evaluation_window, vus_pr
from edge_tsad.evaluation.protocol import history_of, kept_rows, score_all, warmup_points
from edge_tsad.evaluation.sets import load_set
from edge_tsad.registry import BACKENDS, EXPORTERS
from edge_tsad.runtime.scorer import StreamScorer
from edge_tsad.training.model import TrainedModel
from edge_tsad.types import Cells, FloatArray, IndexArray
from export.bench import Bench, Exported
from export.quantize import scheme_named
from export.subject import subject_of

SCHEMES = ("none", "fp16", "dynamic", "static")
COLUMNS = (
    *("series", "channels", "window", "format", "asked", "scheme", "floating", "passed", "refusal"),
    *("bytes", "error_max", "error_p999", "events", "alerts", "changed", "f1", "distinct"),
    *("latency_ms", "seconds", "vus_pr", "vus_pr_loss", "held_out_unseen"),
)
LOSS = {"none": 0.0, "fp16": 0.01, "dynamic": 0.01, "static": 0.02}
"""VUS-PR that a scheme may lose."""

Row = dict[str, Any]


class FileStream:
    """Rows of a series through the gateway's scorer on a model file."""

    def __init__(self, file: Exported, model: TrainedModel) -> None:
        backend = BACKENDS[next(iter(file.entry.runtimes))](file.data)
        self._scorer = StreamScorer(model.timing, len(model.channels), backend)

    def extend(self, index: IndexArray, values: FloatArray) -> tuple[IndexArray, FloatArray]:
        """The points whose scores became final; a row without a value is no point."""
        observed = np.isfinite(values)
        seen = observed.any(axis=1)
        known = np.where(observed, values, np.float32(0))
        scores = self._scorer.extend(
            Cells(index[seen], known[seen], observed[seen].astype(np.float32))
        )
        return scores.index, scores.score


def find(data: Path, text: str) -> tuple[str, LabelledSeries]:
    """A series by ``SET:BEGINNING`` and what its rows are called."""
    place, _, beginning = text.partition(":")
    for series in load_set(place, data).series:
        if series.name.startswith(beginning):
            return f"{place}:{series.name}", series
    raise SystemExit(f"{text}: {place} has no usable series whose name begins so")


def quality(file: Exported, model: TrainedModel, series: LabelledSeries) -> float:
    """VUS-PR of a file on the test part; what was never scored has the lowest score."""
    history, end = history_of(series), series.train_end
    primed = max(0, end - model.timing.window) if series.contiguous else end
    score = score_all(FileStream(file, model), series.index[primed:], series.values[primed:])
    score = score[end - primed :]
    kept = kept_rows(series, warmup_points(history))
    filled = np.where(np.isnan(score), np.nanmin(score), score)
    window = evaluation_window(np.nan_to_num(history.values[:, 0]))
    return vus_pr(series.labels[end:][kept], filled[kept], window)


def measure(
    name: str, series: LabelledSeries, model: TrainedModel, done: set[tuple[str, str]]
) -> Iterator[Row]:
    """A row for each format and scheme that is not ``done``."""
    bench = None
    for kind, exporter_class in EXPORTERS.items():
        wanted = [scheme for scheme in SCHEMES if (kind, scheme) not in done]
        if not wanted:
            continue
        bench = bench or Bench.of(subject_of(model, 0), None, 0)
        exporter, float_vus = exporter_class(), None
        original = exporter.convert(model.detector)
        for asked in dict.fromkeys(["none", *wanted]):
            row: Row = {
                "series": name,
                "channels": len(model.channels),
                "window": model.timing.window,
                "format": kind,
                "asked": asked,
                "held_out_unseen": model.facts["held_out_unseen"],
            }
            scheme, began = scheme_named(asked), time.perf_counter()
            try:
                file = bench.quantized(bench.label(exporter, scheme), original, exporter, scheme)
            except EdgeTsadError as error:
                row |= {"passed": False, "refusal": str(error)}
            else:
                row |= described(file) | {"seconds": round(time.perf_counter() - began, 1)}
                row["vus_pr"] = quality(file, model, series)
                float_vus = row["vus_pr"] if asked == "none" else float_vus
                if float_vus is not None:
                    row["vus_pr_loss"] = float_vus - row["vus_pr"]
            if asked in wanted:
                yield row


def described(file: Exported) -> Row:
    """What the gate found."""
    facts: Any = file.entry.parity
    alerts = facts["alerts"]
    return {
        "scheme": file.entry.scheme,
        "floating": " ".join(f"{at}:{shape}" for at, shape in facts["in_float"].items()),
        "passed": True,
        "bytes": len(file.data),
        "error_max": facts["max"],
        "error_p999": facts["p999"],
        "events": alerts["events"] + alerts["real"],
        "alerts": alerts["expected"],
        "changed": alerts["changed"],
        "f1": alerts["f1"],
        "distinct": facts["distinct"],
        "latency_ms": facts["latency_ms"],
    }


def read(path: Path) -> list[Row]:
    """The rows that are there."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: Row) -> None:
    """One more row, safe once this returns."""
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)


def summary(rows: list[Row]) -> str:
    """Tables as Markdown: by format and scheme, then what was refused."""
    lines = [
        "# Quantization",
        "",
        f"{len({row['series'] for row in rows})} series; the worst of them in each row. Errors are"
        " in units of threshold − median normal score, alerts on a stream with injected anomalies.",
        "",
        "| format | scheme | passed | bytes, median (most) | error 99.9 % | alerts changed | ms |"
        " VUS-PR loss, mean (most) | within |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind in EXPORTERS:
        for asked in SCHEMES:
            some = [r for r in rows if (r["format"], r["asked"]) == (kind, asked)]
            good = [r for r in some if str(r["passed"]) == "True"]
            if not good:
                lines.append(f"| {kind} | {asked} | 0 of {len(some)} | | | | | | |")
                continue
            size, error, ms, loss = (
                np.array([float(r[key] or "nan") for r in good])
                for key in ("bytes", "error_p999", "latency_ms", "vus_pr_loss")
            )
            changed, alerts = (sum(int(r[key]) for r in good) for key in ("changed", "alerts"))
            within = int((loss <= LOSS[asked] + 1e-9).sum())
            lines.append(
                f"| {kind} | {asked} | {len(good)} of {len(some)} |"
                f" {np.median(size):,.0f} ({size.max():,.0f}) | {error.max():.2g} |"
                f" {changed} of {alerts} | {np.median(ms):.2f} |"
                f" {np.nanmean(loss):.4f} ({np.nanmax(loss):.4f}) | {within} |"
            )
    refused = [r for r in rows if str(r["passed"]) != "True"]
    lines += ["", f"Refused: {len(refused)}.", ""]
    lines += [f"- {r['series']} {r['format']} {r['asked']}: {r['refusal']}" for r in refused]
    instead = [r for r in rows if r["scheme"] and r["scheme"] != r["asked"]]
    lines += [f"- {r['series']} {r['format']} {r['asked']}: {r['scheme']} instead" for r in instead]
    bounds = ", ".join(f"{scheme} {loss:g}" for scheme, loss in LOSS.items() if loss)
    lost = [r for r in rows if r["vus_pr_loss"] and float(r["vus_pr_loss"]) > LOSS[r["asked"]]]
    lines += ["", f"Files that pass the gate and lose more VUS-PR than wanted ({bounds}):", ""]
    lines += [
        f"- {r['series']} {r['format']} {r['asked']}: {float(r['vus_pr_loss']):.3f}"
        for r in lost
        if r["asked"] != "none"
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure what is missing and write the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("series", nargs="+")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--out", type=Path, default=Path("quantization.csv"))
    args = parser.parse_args()
    for text in args.series:
        name, series = find(args.data, text)
        done = {(row["format"], row["asked"]) for row in read(args.out) if row["series"] == name}
        if len(done) == len(EXPORTERS) * len(SCHEMES):
            continue
        print(f"{time.strftime('%H:%M:%S')} {name}", file=sys.stderr)
        try:
            model = model_of(history_of(series), args.models)
            for row in measure(name, series, model, done):
                append(args.out, row)
                verdict = row.get("scheme") or row["refusal"]
                print(f"  {row['format']} {row['asked']}: {verdict}", file=sys.stderr)
        except EdgeTsadError as error:
            print(f"  left out: {error}", file=sys.stderr)
    args.out.with_suffix(".md").write_text(summary(read(args.out)))


if __name__ == "__main__":
    main()
