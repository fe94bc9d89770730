"""What each term of CoAD's score finds, alone and together, from one fit a series.

Run from the repository's root:

    python benchmarks/ablation.py UCR --data DATA --series @benchmarks/tune24.txt --models MODELS

Each series is trained on once, or its model taken from MODELS; the terms of that one net are then
scored as streams of their own, so that two rows of the table differ by the term alone and not by
the chances of two fits. Scores come from the torch module: export's gate holds the files to it. A
stopped run goes on from OUT.csv.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from joblib import Parallel, delayed
from trained import SEED, model_of

from edge_tsad.cli.listed import lines_of
from edge_tsad.detectors.coad import (
    PROBABILITY_WEIGHT,
    RESIDUAL_WEIGHT,
    SHAPE_WEIGHT,
    CoAD,
    Terms,
)
from edge_tsad.evaluation.benchmark import Settings
from edge_tsad.evaluation.candidates import Candidate, Fitted
from edge_tsad.evaluation.figures import measure
from edge_tsad.evaluation.labelled import LabelledSeries
from edge_tsad.evaluation.ledger import current_commit
from edge_tsad.evaluation.protocol import history_of
from edge_tsad.evaluation.report import machine
from edge_tsad.evaluation.sets import load_set
from edge_tsad.evaluation.shipped import DetectorStream
from edge_tsad.runtime.scorer import StreamScorer
from edge_tsad.training.series import Series
from edge_tsad.training.threads import one_thread
from edge_tsad.types import FloatArray

Score = Callable[[Terms], torch.Tensor]


def _size(term: torch.Tensor) -> torch.Tensor:
    return torch.sqrt(torch.mean(term * term, dim=2))


def _weighted(
    terms: Terms,
    *,
    probability: float = PROBABILITY_WEIGHT,
    residual: float = RESIDUAL_WEIGHT,
    shapes: float = SHAPE_WEIGHT,
) -> torch.Tensor:
    return (
        probability * terms.probability_excess
        + residual * _size(terms.residual_excess)
        + shapes * _size(terms.strangeness)
    )


SCORES: Mapping[str, Score] = {
    "A_c": lambda terms: terms.probability,
    "a": lambda terms: terms.probability_excess,
    "r": lambda terms: _size(terms.residual),
    "e": lambda terms: _size(terms.residual_excess),
    "s": lambda terms: _size(terms.strangeness),
    "A_c + r (the paper's)": lambda terms: terms.probability + _size(terms.residual),
    "A_c / 2 + 4 e + 1.5 s": lambda terms: (
        0.5 * terms.probability + _weighted(terms, probability=0, residual=4)
    ),
    "a + 2 e, without s": lambda terms: _weighted(terms, shapes=0),
    "a + 1.5 s, without e": lambda terms: _weighted(terms, residual=0),
    "2 e + 1.5 s, without a": lambda terms: _weighted(terms, probability=0),
    "a + 4 e + 1.5 s": lambda terms: _weighted(terms, residual=4),
    "2 a + 2 e + 1.5 s": lambda terms: _weighted(terms, probability=2),
    "a + 2 e + 1.5 s (shipped)": _weighted,
}
FIGURES = ("acc1", "acc3", "vus_pr", "auc_pr")
BATCH = 64


class TermBackend:
    """Scores windows by some of the terms; behind the protocol of the device backends."""

    name = "terms"
    max_batch = BATCH

    def __init__(self, net: CoAD, score: Score) -> None:
        self._net, self._score = net, score

    def score(
        self, windows: FloatArray, observed: FloatArray
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Only ``score`` means something here."""
        with torch.inference_mode():
            terms = self._net.terms(
                torch.from_numpy(np.array(windows)), torch.from_numpy(np.array(observed))
            )
            expected = terms.expected.numpy()
            score = self._score(terms).numpy()
        return {"score": score, "channel_score": np.zeros_like(expected), "expected": expected}


class Part(Candidate):
    """A net that is fitted already, scored by some of its terms."""

    def __init__(self, name: str, net: CoAD) -> None:
        self.name, self._net = name, net

    def settings(self) -> dict[str, object]:
        """The terms."""
        return {"terms": self.name}

    def fit(self, history: Series, seed: int) -> Fitted:
        """The same net whatever the seed; it was fitted to ``history``."""
        timing, channels = self._net.timing, len(history.channels)
        backend = TermBackend(self._net, SCORES[self.name])
        return Fitted(
            stream=lambda: DetectorStream(StreamScorer(timing, channels, backend)),
            window=timing.window,
            delay=timing.delay,
        )


def figures_of(series: LabelledSeries, models: Path) -> list[dict[str, object]]:
    """A row for each of ``SCORES``."""
    with one_thread():
        net = model_of(history_of(series), models).detector
        assert isinstance(net, CoAD)
        rows = []
        for name in SCORES:
            found = measure(Part(name, net), series, SEED, timeout_s=Settings().timeout_s)
            kept = {key: found[key] for key in ("status", *FIGURES)}
            of = {"series": series.name, "recording": series.recording, "terms": name}
            rows.append(of | kept)
    return rows


def markdown(rows: list[dict[str, str]], command: str) -> str:
    """Means over the series."""
    names = sorted({row["series"] for row in rows})
    lines = ["# What each term of CoAD finds", "", f"- command: `{command}`"]
    lines += [f"- commit: {current_commit()}", *machine(), ""]
    lines += [
        f"{len(names)} series that are set apart for choosing, one of each recording, one fit "
        "each; scores as a stream has them. The choice of the terms was made on these very "
        "series. r is |x - x_r| in ranges of the history, a and e what of A_c and r is beyond the "
        "usual, s the distance to known shapes.",
        "",
        "| score | Acc@1 | Acc@3 | VUS-PR | AUC-PR |",
        "|---|---:|---:|---:|---:|",
    ]
    for terms in SCORES:
        own = [row for row in rows if row["terms"] == terms]
        means = [np.mean([float(row[key]) for row in own]) for key in FIGURES]
        lines.append(f"| {terms} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure what is missing, a series at a time, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set")
    parser.add_argument("--data", default=".")
    parser.add_argument("--series", default="", help="NAME,NAME or @FILE")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/ablation"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--models", type=Path, default=Path("build/models"))
    given = parser.parse_args()
    names = [name for line in lines_of(given.series, "--series") for name in line.split(",")]
    chosen = load_set(given.set, given.data).choose([name for name in names if name])
    table = given.out.with_suffix(".csv")
    rows = list(csv.DictReader(table.open())) if table.exists() else []
    missing = [one for one in chosen.series if one.name not in {row["series"] for row in rows}]
    pool = Parallel(n_jobs=given.jobs, return_as="generator_unordered")
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, ("series", "recording", "terms", "status", *FIGURES))
        if not rows:
            writer.writeheader()
        tasks = (delayed(figures_of)(one, given.models) for one in missing)
        for found in pool(tasks):
            writer.writerows(found)
            file.flush()
            print(found[-1], flush=True)
    rows = list(csv.DictReader(table.open()))
    command = f"python benchmarks/ablation.py {given.set} --series {given.series}"
    given.out.with_suffix(".md").write_text(markdown(rows, command), encoding="utf-8")


if __name__ == "__main__":
    main()
