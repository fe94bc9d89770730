"""Train on a CSV of normal operation and say what the alarm threshold is worth.

python examples/train_from_csv.py history.csv pump.safetensors
"""

import sys
from pathlib import Path

from edge_tsad.runtime.threshold import Budget, Threshold
from edge_tsad.training.fit import train
from edge_tsad.training.series import read_csv


def main(history: str, out: str) -> None:
    series = read_csv(history)
    model = train(series, "coad", seed=0)
    model.save(Path(out))
    budget = Budget.parse("1/7d" if series.has_rate else "1/10000pt", model.timing)
    threshold = Threshold.from_tail(model.tail, budget)
    print(f"{len(series)} points, window {model.timing.window}, delay {model.timing.delay}")
    print(f"threshold {threshold.value:.3g} ({threshold.state})")


if __name__ == "__main__":
    main(*sys.argv[1:])
