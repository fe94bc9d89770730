"""What the histories of each set are like: with a period or none, and with faults of their own.

Run from the repository's root:

    python benchmarks/histories.py DATA UCR NAB SMAP > benchmarks/histories.md

Nothing is trained: it is what ``edge_tsad.training.plan`` makes of each history, and the labels
that lie in it. Of a set with halves only the one to tune on is looked at.
"""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np

from edge_tsad.errors import DataError
from edge_tsad.evaluation.protocol import history_of
from edge_tsad.evaluation.sets import load_set
from edge_tsad.training.plan import history_period, plan_timing

HEADER = (
    *("set", "series", "left out", "period found", "no period", "cannot be planned"),
    *("window (least, median, most)", "histories with labelled faults"),
)


def row(data: str, name: str) -> list[str]:
    """One set."""
    chosen = load_set(name, data).choose()
    found, windows, faulty = Counter[str](), list[int](), 0
    for series in chosen.series:
        history = history_of(series)
        faulty += bool(series.labels[: series.train_end].any())
        try:
            found["period" if history_period(history).found else "none"] += 1
            windows.append(plan_timing(history, multiple=8).window)
        except DataError:
            found["refused"] += 1
    spread = ", ".join(f"{value:.0f}" for value in np.quantile(windows, (0, 0.5, 1)))
    counts = [len(chosen.series), len(chosen.left_out)]
    counts += [found[kind] for kind in ("period", "none", "refused")]
    return [name, *map(str, counts), spread, str(faulty)]


def main() -> None:
    """A table on standard output."""
    data, *names = sys.argv[1:]
    print("# Histories of the sets\n")
    print(f"- command: `python benchmarks/histories.py DATA {' '.join(names)}`\n")
    for cells in (HEADER, ["---"] * len(HEADER), *(row(data, name) for name in names)):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
