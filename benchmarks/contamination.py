"""Histories with faults in them: what is told of them, and what they cost.

Run from the repository's root:

    python benchmarks/contamination.py UCR --data DATA --series NAME,NAME --option steps=100

Into the history of each series faults are put, none of them of the kinds that CoAD is trained on:
0, 1 and 5 % of its points, in stretches of a tenth to a whole period. Each is trained on as it is,
and again with what training called suspicious left out as its note says. The scored test is the
labelled one, untouched. A stopped run goes on; the summary is OUT.csv and OUT.md.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edge_tsad.cli.listed import lines_of
from edge_tsad.evaluation.benchmark import Benchmark, Settings
from edge_tsad.evaluation.candidates import Fitted
from edge_tsad.evaluation.ledger import current_commit
from edge_tsad.evaluation.report import machine, write_csv
from edge_tsad.evaluation.sets import load_set
from edge_tsad.evaluation.shipped import ShippedDetector, option_of
from edge_tsad.evaluation.store import Record, code_digest
from edge_tsad.evaluation.summary import totals
from edge_tsad.training.distortion import Kind, distort
from edge_tsad.training.plan import history_period
from edge_tsad.training.series import Series
from edge_tsad.training.spans import excluding, rows_of
from edge_tsad.types import FloatArray

SHARES = (0.0, 0.01, 0.05)
PERIODS = 4
"""Periods in the piece of history that a fault is put into."""

APART = 2
"""Periods between faults, so that each is one."""

Rows = list[tuple[int, int]]


def _shift(series: FloatArray, start: int, span: int, rng: np.random.Generator) -> FloatArray:
    up = np.float32(rng.choice([-0.4, 0.4]) * np.ptp(series))
    return np.asarray(series[start : start + span] + up, np.float32)


def _damp(series: FloatArray, start: int, span: int, rng: np.random.Generator) -> FloatArray:
    part = series[start : start + span]
    share = np.float32(rng.uniform(0.2, 0.5))
    return np.asarray(part.mean() + share * (part - part.mean()), np.float32)


def _early(series: FloatArray, start: int, span: int, rng: np.random.Generator) -> FloatArray:
    by = int(rng.uniform(0.2, 0.8) * len(series) / PERIODS)
    return np.roll(series, -by)[start : start + span].copy()


def _pulse(series: FloatArray, start: int, span: int, rng: np.random.Generator) -> FloatArray:
    height = rng.choice([-0.6, 0.6]) * np.ptp(series)
    return (series[start : start + span] + height * np.hanning(span + 2)[1:-1]).astype(np.float32)


FAULTS: Mapping[str, Kind] = {"shift": _shift, "damp": _damp, "early": _early, "pulse": _pulse}


def contaminated(history: Series, share: float, seed: int) -> tuple[Series, Rows]:
    """``history`` with ``share`` of its points at fault, and where: first and last rows."""
    rng = np.random.default_rng(seed)
    period = history_period(history).points
    values, found = history.values.copy(), list[tuple[int, int]]()
    length = PERIODS * period
    for _ in range(1000):
        if sum(last - first + 1 for first, last in found) >= share * len(history):
            break
        begin = int(rng.integers(len(history) - length + 1))
        near = slice(begin - APART * period, begin + length + APART * period)
        if any(first < near.stop and last > near.start for first, last in found):
            continue
        piece = distort(values[None, begin : begin + length], period, rng, FAULTS)
        changed = np.flatnonzero(piece.changed[0].any(axis=1))
        if len(changed):
            values[begin : begin + length] = piece.values[0]
            found.append((begin + int(changed[0]), begin + int(changed[-1])))
    return dataclasses.replace(history, values=values), sorted(found)


class Contaminated(ShippedDetector):
    """CoAD after such a history; ``leaving_out`` trains again without what the first fit told."""

    def __init__(self, share: float, options: Mapping[str, object], *, leaving_out: bool) -> None:
        super().__init__("coad", options)
        self.share, self.leaving_out = share, leaving_out
        self.name = f"{share:.0%}" + (", suspicious left out" if leaving_out else "")

    def settings(self) -> dict[str, object]:
        """With what this file puts into histories."""
        mine = {"share": self.share, "leaving_out": self.leaving_out}
        return super().settings() | mine | {"faults": code_digest("../benchmarks/contamination")}

    def fit(self, history: Series, seed: int) -> Fitted:
        """The facts count faults and what was told of them."""
        series, faults = contaminated(history, self.share, seed)
        fitted = super().fit(series, seed)
        told = str(fitted.facts["suspicious"]).split()
        rows = [rows_of(series, span) for span in told]
        hit = [any(r.start <= last and first < r.stop for r in rows) for first, last in faults]
        clean = [not any(r.start <= b and a < r.stop for a, b in faults) for r in rows]
        covered = sum(
            len(range(max(a, r.start), min(b + 1, r.stop))) for a, b in faults for r in rows
        )
        if self.leaving_out and told:
            fitted = super().fit(excluding(series, told), seed)
        facts = {
            "faults": len(faults),
            "fault_points": sum(b - a + 1 for a, b in faults),
            "faults_told": sum(hit),
            "fault_points_told": covered,
            "told": len(told),
            "told_clean": sum(clean),
            "left_out": int(sum(r.stop - r.start for r in rows)) if self.leaving_out else 0,
        }
        return dataclasses.replace(fitted, facts={**fitted.facts, **facts})


def markdown(records: Sequence[Record], command: str) -> str:
    """One table over all series, one by series."""
    lines = ["# Histories with faults in them", "", f"- command: `{command}`"]
    lines += [f"- commit: {current_commit()}", *machine(), ""]
    lines += [__doc__.split("\n\n")[3].replace("\n", " "), ""]
    lines += ["| history | faults | told | told, but clean | VUS-PR | Acc@1 |"]
    lines += ["|---|---|---|---|---|---|"]
    for total in totals(records):
        mine = [r for r in records if r["candidate"] == total.candidate]
        faults, found, clean = (_sum(mine, key) for key in ("faults", "faults_told", "told_clean"))
        vus, acc = total.means["vus_pr"].value, total.means["acc1"].value
        lines.append(
            f"| {total.candidate} | {faults} | {found} | {clean} | {vus:.3f} | {acc:.2f} |"
        )
    lines += ["", "| series | history | points | faults | told | told, but clean | VUS-PR | hit |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for r in records:
        counts = [r.get(key, "-") for key in ("faults", "faults_told", "told_clean")]
        cells = [r["series"], r["candidate"], r["history"], *counts, f"{r['vus_pr']:.3f}"]
        lines.append(f"| {' | '.join(map(str, cells))} | {r['acc1']} |")
    return "\n".join([*lines, ""])


def _sum(records: Sequence[Record], key: str) -> int:
    return int(sum(record.get(key, 0) for record in records))


def main() -> None:
    """Run what is missing, write the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set")
    parser.add_argument("--data", default=".")
    parser.add_argument("--series", default="", help="NAME,NAME or @FILE")
    parser.add_argument("--results", type=Path, default=Path("build/contamination"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/contamination"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--option", action="append", default=[], help="KEY=VALUE of the detector")
    given = parser.parse_args()
    names = [name for line in lines_of(given.series, "--series") for name in line.split(",")]
    chosen = load_set(given.set, given.data).choose([name for name in names if name])
    options = dict(option_of(text) for text in given.option)
    candidates = [Contaminated(share, options, leaving_out=False) for share in SHARES]
    candidates += [Contaminated(share, options, leaving_out=True) for share in SHARES]
    benchmark = Benchmark(chosen, candidates, Settings((given.seed,), given.jobs), given.results)

    def tell(done: int, of: int, record: Record) -> None:
        found = {key: record.get(key) for key in ("faults", "faults_told", "told_clean")}
        result = f"{record['status']} VUS-PR {record['vus_pr']:.3f} {record['reason']}"
        print(
            f"[{done}/{of}] {record['series']} {record['candidate']}: {result}", found, flush=True
        )

    records = benchmark.run(tell)
    write_csv(given.out.with_suffix(".csv"), records)
    words = [f"--series {given.series}"] if given.series else []
    words += [f"--option {text}" for text in given.option]
    command = " ".join(["python benchmarks/contamination.py", given.set, *words])
    given.out.with_suffix(".md").write_text(markdown(records, command), encoding="utf-8")


if __name__ == "__main__":
    main()
