"""What a score gains by waiting: VUS-PR and Acc@1 of one trained model at several delays.

Run from the repository's root:

    python benchmarks/delay.py UCR --data DATA --series @benchmarks/tune24.txt --models MODELS

Each series is trained on once, or its model taken from MODELS; its stream is then scored once for
each delay D, given in quarters of the window: a dominant period each, but several where periods are
short and less where they are very long. Up to the default it has the hop and smoothing
that ``edge-tsad train --max-delay`` chooses, beyond it those of the default. "offline" is the
longest D there is. Scores come from the torch module: export's gate holds the files to it. A
stopped run goes on; the summary is OUT.csv, .md and .svg.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from joblib import Parallel, delayed
from trained import SEED, model_of

from edge_tsad.cli.listed import lines_of
from edge_tsad.evaluation.benchmark import Benchmark, Settings
from edge_tsad.evaluation.candidates import Candidate, Fitted
from edge_tsad.evaluation.ledger import current_commit
from edge_tsad.evaluation.protocol import history_of
from edge_tsad.evaluation.report import machine, write_csv
from edge_tsad.evaluation.sets import load_set
from edge_tsad.evaluation.shipped import DetectorStream
from edge_tsad.evaluation.store import Record, code_digest
from edge_tsad.evaluation.summary import Total, difference, totals
from edge_tsad.runtime.scorer import StreamScorer
from edge_tsad.training.model import TrainedModel
from edge_tsad.training.plan import plan_timing
from edge_tsad.training.series import Series
from edge_tsad.training.torch_backend import TorchBackend
from edge_tsad.types import Timing

mpl.use("Agg")
from matplotlib import pyplot as plt

FRACTIONS = {"1/8": 0.125, "1/4": 0.25, "1/2": 0.5, "3/4": 0.75, "1": 1.0, "3/2": 1.5}
FRACTIONS |= {"2": 2.0, "offline": float("inf")}
"""In quarters of the window. 0 is left out: a window would have to be scored at every point."""
DEFAULT = "1"
TOLERANCE = 0.01
"""The delay to choose is the shortest whose VUS-PR is no further than this from one period's."""

SOURCES = ("detectors", "training", "runtime/scorer", "runtime/rows", "runtime/ring_buffer")


def timing_at(model: TrainedModel, history: Series, periods: float) -> Timing:
    """The model's timing with D = ``periods`` quarters of the window, or the longest there is."""
    base = model.timing
    delay = min(periods * base.window / 4, base.offline().delay)
    if delay > base.delay:
        return dataclasses.replace(base, delay=round(delay))
    return plan_timing(history, multiple=8, window=base.window, max_delay=round(delay))


class AtDelay(Candidate):
    """A model that is there already, scored at one delay."""

    def __init__(self, fraction: str, models: Path) -> None:
        self.name, self._models = fraction, models

    def settings(self) -> dict[str, object]:
        """The delay, and what made the model."""
        return {"fraction": self.name, "code": code_digest(*SOURCES)}

    def fit(self, history: Series, seed: int) -> Fitted:
        """The model of this history, with another delay."""
        model = model_of(history, self._models)
        timing = timing_at(model, history, FRACTIONS[self.name])
        channels = len(model.channels)
        return Fitted(
            stream=lambda: DetectorStream(
                StreamScorer(timing, channels, TorchBackend(model.detector))
            ),
            window=timing.window,
            delay=timing.delay,
            facts={"hop": timing.hop, "smoothing": timing.smoothing},
        )


def markdown(every: Sequence[Total], records: Sequence[Record], command: str) -> str:
    """The table, and the delay that the rule chooses."""
    best = next(total for total in every if total.candidate == DEFAULT).means["vus_pr"].value
    near = [one.candidate for one in every if one.means["vus_pr"].value >= best - TOLERANCE]
    lines = ["# Accuracy against delay", "", f"- command: `{command}`"]
    lines += [f"- commit: {current_commit()}", *machine(), ""]
    lines += [
        "One trained model a series, scored as a stream at each delay D. A "
        "period here is a quarter of the window: the dominant period, but several short ones, and "
        "less than a very long one. In brackets 95 % intervals by bootstrap over recordings; the "
        "last column is paired.",
        "",
        "| D in periods | VUS-PR | Acc@1 | n | VUS-PR minus one period's |",
        "|---|---|---|---|---|",
    ]
    for total in every:
        vus, acc = total.means["vus_pr"], total.means["acc1"]
        gap = difference(records, total.candidate, DEFAULT, "vus_pr")
        assert gap is not None
        lines.append(
            f"| {total.candidate} | {vus.value:.3f} [{vus.low:.3f}, {vus.high:.3f}] | "
            f"{acc.value:.3f} | {total.series} | "
            f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}] |"
        )
    lines += ["", f"The shortest delay within {TOLERANCE:g} of one period's: **{near[0]}**.", ""]
    return "\n".join(lines)


def plot(every: Sequence[Total], path: Path) -> None:
    """VUS-PR and Acc@1 by delay."""
    names = [total.candidate for total in every]
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for label, key in (("VUS-PR", "vus_pr"), ("Acc@1", "acc1")):
        found = [total.means[key] for total in every]
        axes.plot(names, [one.value for one in found], marker="o", label=label)
        axes.fill_between(
            names, [one.low for one in found], [one.high for one in found], alpha=0.15
        )
    axes.set(xlabel="delay D in dominant periods", ylim=(0, 1))
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Train what is missing, score at each delay, write the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set")
    parser.add_argument("--data", default=".")
    parser.add_argument("--series", default="", help="NAME,NAME or @FILE")
    parser.add_argument("--models", type=Path, default=Path("build/models"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/delay"))
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    names = [name for line in lines_of(given.series, "--series") for name in line.split(",")]
    chosen = load_set(given.set, given.data).choose([name for name in names if name])
    histories = [history_of(series) for series in chosen.series]
    Parallel(n_jobs=given.jobs)(delayed(model_of)(history, given.models) for history in histories)
    candidates = [AtDelay(fraction, given.models) for fraction in FRACTIONS]
    settings = Settings((SEED,), given.jobs)
    benchmark = Benchmark(chosen, candidates, settings, given.models / "delay")

    def tell(done: int, of: int, record: Record) -> None:
        result = f"{record['status']} VUS-PR {record['vus_pr']:.3f} {record['reason']}"
        print(f"[{done}/{of}] {record['series']} D {record['candidate']}: {result}", flush=True)

    records = benchmark.run(tell)
    write_csv(given.out.with_suffix(".csv"), records)
    every = totals(records)
    words = [f"--series {given.series}"] if given.series else []
    command = " ".join(["python benchmarks/delay.py", given.set, *words])
    given.out.with_suffix(".md").write_text(markdown(every, records, command), encoding="utf-8")
    plot(every, given.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
