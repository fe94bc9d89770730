"""CMDML's accuracy: its parts alone, its net untrained, its peers, CoAD, and both detectors fused.

Run from the repository's root:

    python benchmarks/cmdml.py DATA                      # CMDML and peers
    python benchmarks/cmdml.py DATA --with-coad SKAB ASD # CoAD and both fused, on these sets

DATA is a folder of labelled sets (see ``edge_tsad.evaluation.sets``). The series are those of
``SERIES``: every n-th usable one of a set in the order of its file, of UCR the tune half only, and
none on which CMDML's constants were chosen (``CHOOSING``). The
rules are those of ``edge-tsad bench``, but the float model is scored in torch and nothing is
calibrated or exported, so that all parts come from one fit. Results are appended to
``build/cmdml/SET/results.jsonl``; a stopped run goes on from there. Every run writes all tables
that there are to ``benchmarks/cmdml.csv`` and ``benchmarks/cmdml.md``.
"""

from __future__ import annotations

import argparse
import copy
import functools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge_tsad.detectors.base import Detector
from edge_tsad.detectors.cmdml import CMDML, Fusion
from edge_tsad.evaluation.benchmark import Benchmark, Settings
from edge_tsad.evaluation.candidates import Candidate, Fitted
from edge_tsad.evaluation.figures import Trial
from edge_tsad.evaluation.labelled import LabelledSet
from edge_tsad.evaluation.ledger import current_commit
from edge_tsad.evaluation.peers import PEERS
from edge_tsad.evaluation.report import machine, write_csv
from edge_tsad.evaluation.sets import load_set
from edge_tsad.evaluation.shipped import DetectorStream
from edge_tsad.evaluation.store import Record, Store, code_digest
from edge_tsad.evaluation.summary import Total, totals
from edge_tsad.registry import DETECTORS
from edge_tsad.runtime.scorer import StreamScorer
from edge_tsad.training.calibrate import score_history
from edge_tsad.training.series import Series
from edge_tsad.training.threads import one_thread
from edge_tsad.training.torch_backend import TorchBackend
from edge_tsad.types import FloatArray, IndexArray

SERIES = {"SKAB": 8, "TEP": 6, "UCR": 8, "ASD": 3, "SMD": 1}
OUT = Path("build/cmdml")
PAGE = Path("benchmarks/cmdml.md")
PARTS = {
    "direction": Fusion(direction=1),
    "distance": Fusion(distance=1),
    "amplitude": Fusion(amplitude=1),
    "states": Fusion(patch_state=1, state=2),
}
CHOOSING = {
    "SKAB": ("other__1", "valve1__0", "valve1__1", "valve2__0"),
    "TEP": ("d01_te", "d05_te", "d09_te", "d13_te"),
    "ASD": ("omi-1", "omi-3", "omi-10"),
    "SMD": ("machine-1-6", "machine-2-4"),
}
"""Series on which CMDML's constants were chosen: never in a table."""

SHARED = (
    *(f"training/{name}" for name in ("plan", "period", "windows", "scaling", "distortion")),
    *("training/series", "detectors/missing", "runtime/scorer", "runtime/rows"),
)
OWN = {
    "coad": ("coad", "coad_fit", "encoders", "shapes", "spectrum"),
    "cmdml": (
        *("cmdml", "cmdml_fit", "cmdml_history", "cmdml_net"),
        *("directions", "joint_state", "modalities", "principal", "triplets"),
    ),
}
CODE = {name: (*SHARED, *(f"detectors/{part}" for part in parts)) for name, parts in OWN.items()}
Combine = Callable[[FloatArray, FloatArray], FloatArray]
CHEAP_PEERS = ("matrix-profile", "kmeans-ad", "kmeans-ad-z", "isolation-forest")


@functools.lru_cache(maxsize=4)
def _fit(detector: str, steps: int | None, key: bytes, seed: int) -> tuple[Detector, float]:
    history = _HISTORIES[key]
    kind: type[Detector] = DETECTORS[detector]
    options = {} if steps is None else {"steps": steps}
    begun = time.process_time()
    net = kind.fit(history, kind.plan(history), seed=seed, **options)
    return net, time.process_time() - begun


_HISTORIES: dict[bytes, Series] = {}


def fitted(detector: str, steps: int | None, history: Series, seed: int) -> tuple[Detector, float]:
    """A detector fitted to ``history``, once for all candidates that want the same.

    And the processor time that took, seconds.
    """
    key = history.values.tobytes()
    _HISTORIES.clear()
    _HISTORIES[key] = history
    with one_thread():
        return _fit(detector, steps, key, seed)


def stream(net: Detector) -> DetectorStream:
    """A pass of ``net`` in torch through the gateway's scorer."""
    return DetectorStream(StreamScorer(net.timing, net.channels, TorchBackend(net)))


class Part(Candidate):
    """CMDML, or CoAD, in torch; ``fusion`` replaces the weights of CMDML's parts."""

    def __init__(
        self,
        name: str,
        detector: str = "cmdml",
        steps: int | None = None,
        fusion: Fusion | None = None,
    ) -> None:
        self.name, self._detector, self._steps, self._fusion = name, detector, steps, fusion

    def settings(self) -> dict[str, object]:
        """The options and the state of the code."""
        code = code_digest(*CODE[self._detector])
        options = [self._detector, self._steps, self._fusion and list(self._fusion)]
        return {"name": self.name, "options": options, "code": code}

    def detector(self, history: Series, seed: int) -> tuple[Detector, float]:
        """The fitted net, and the processor time that its fit took."""
        net, seconds = copy.deepcopy(fitted(self._detector, self._steps, history, seed))
        if isinstance(net, CMDML) and self._fusion is not None:
            net.fusion = self._fusion
        return net, seconds

    def fit(self, history: Series, seed: int) -> Fitted:
        """See `Candidate.fit`."""
        net, seconds = self.detector(history, seed)
        return Fitted(
            lambda: stream(net),
            window=net.timing.window,
            delay=net.timing.delay,
            parameters=net.parameter_count(),
            facts={"fit_cpu_s": round(seconds, 1)},
        )


class Both(Candidate):
    """CoAD and CMDML, each in units of its history's 99.9 % level; their mean or maximum."""

    def __init__(self, how: str) -> None:
        self.name = f"coad+cmdml ({how})"
        self._how = how
        self._parts = (Part("coad", "coad"), Part("cmdml"))

    def settings(self) -> dict[str, object]:
        """Those of both."""
        return {"how": self._how, "parts": [part.settings() for part in self._parts]}

    def fit(self, history: Series, seed: int) -> Fitted:
        """See `Candidate.fit`."""
        nets = [part.detector(history, seed)[0] for part in self._parts]
        units = [_unit(net, history) for net in nets]
        combine: Combine = np.maximum if self._how == "max" else _mean
        return Fitted(
            lambda: _Fused([stream(net) for net in nets], units, combine),
            window=nets[0].timing.window,
            delay=nets[0].timing.delay,
            parameters=sum(net.parameter_count() for net in nets),
        )


def _unit(net: Detector, history: Series) -> tuple[float, float]:
    score = score_history(net, net.timing, history).score
    median, level = np.nanquantile(score, (0.5, 0.999))
    return float(median), float(max(level - median, 1e-6))


def _mean(a: FloatArray, b: FloatArray) -> FloatArray:
    return (a + b) / 2


class _Fused:
    def __init__(
        self, streams: list[DetectorStream], units: list[tuple[float, float]], combine: Combine
    ) -> None:
        self._streams, self._units, self._combine = streams, units, combine

    def extend(self, index: IndexArray, values: FloatArray) -> tuple[IndexArray, FloatArray]:
        """Both have one timing, so that they emit the same points."""
        told = [stream.extend(index, values) for stream in self._streams]
        scaled = [(s - m) / u for (_, s), (m, u) in zip(told, self._units, strict=True)]
        return told[0][0], self._combine(*scaled).astype(np.float32)


def choose(name: str, data: Path) -> LabelledSet | None:
    """Some of the series of a set in which there is something to find, evenly spread; or None.

    None of them is one of ``CHOOSING``.
    """
    whole = load_set(name, data).choose()
    fresh = [series for series in whole.series if series.name not in CHOOSING.get(name, ())]
    usable = [series.name for series in fresh if not Trial(series).reason]
    count = min(SERIES[name], len(usable))
    if not count:
        return None
    at = np.unique(np.linspace(0, len(usable) - 1, count).astype(int))
    return load_set(name, data).choose([usable[i] for i in at])


def candidates(with_coad: bool) -> list[Candidate]:
    """CMDML first: differences are to it."""
    parts = [Part(f"cmdml, {part} alone", fusion=weights) for part, weights in PARTS.items()]
    coad = [Part("coad", "coad"), Both("mean"), Both("max")] if with_coad else []
    peers = [PEERS[name] for name in CHEAP_PEERS]
    return [Part("cmdml"), *parts, Part("cmdml, untrained", steps=0), *coad, *peers]


def row(total: Total, records: list[Record]) -> str:
    """One candidate on one set."""
    # A part's own fit is another candidate's: what it took is what that one took.
    own = [r for r in records if r["candidate"] == total.candidate]
    seconds = float(np.median([r.get("fit_cpu_s", r.get("fit_s", np.nan)) for r in own]))
    cells = [
        total.candidate,
        str(total.series),
        f"{total.means['acc1'].value:.2f}",
        f"{total.means['vus_pr'].value:.3f}",
        f"{total.floors['vus_pr']:.3f}",
        f"{total.corrected.value:.3f} [{total.corrected.low:.3f}, {total.corrected.high:.3f}]",
        f"{total.means['auc_pr'].value:.3f}",
        f"{seconds:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def page(records: dict[str, list[Record]]) -> str:
    """All tables."""
    header = ["", "n", "Acc@1", "VUS-PR", "floor", "VUS-PR over chance", "AUC-PR", "fit s"]
    lines = ["# CMDML, its parts and its peers", "", "`python benchmarks/cmdml.py DATA`", ""]
    lines += [f"- commit: {current_commit()}", *machine(), ""]
    lines += ["Every n-th usable series of a set (UCR: tune half), seed 0; stream scores of the"]
    lines += ["float model. *Fit s* is the median of processor seconds (peers: of wall"]
    lines += ["time, on a shared machine). Sets are too small here for a ranking of close figures."]
    lines += ["", "Constants were chosen on series that are in no table here:"]
    lines += [f"{name}: {', '.join(names)}." for name, names in CHOOSING.items()]
    lines += ["UCR has no such list: for one channel nothing was chosen on it."]
    for name, some in records.items():
        # Where a dear candidate ran on fewer series, all are shown on those they have in common.
        full = [r for r in some if "acc1" in r]
        names = dict.fromkeys(r["candidate"] for r in full)
        seen = {n: {r["series"] for r in full if r["candidate"] == n} for n in names}
        common = set.intersection(*seen.values()) if seen else set()
        lines += ["", f"## {name}", ""]
        lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        shown = [r for r in full if r["series"] in common]
        lines += [row(total, shown) for total in totals(shown)]
    return "\n".join(lines) + "\n"


def tell(done: int, every: int, record: Record) -> None:
    """One line of progress."""
    figure, who = record.get("vus_pr"), f"{record['candidate']}, {record['series']}"
    print(f"[{done}/{every}] {who}: {figure} {record['reason']}", flush=True)


def main() -> None:
    """Run what is missing, write what there is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="*", default=list(SERIES), choices=list(SERIES))
    parser.add_argument("--with-coad", nargs="*", default=[], choices=list(SERIES))
    given = parser.parse_args()
    for name in given.sets:
        chosen = choose(name, given.data)
        if chosen is None:
            print(f"{name}: in none of its series is there anything to find after the warm-up")
            continue
        some = candidates(name in given.with_coad)
        benchmark = Benchmark(chosen, some, Settings(timeout_s=1800.0), OUT / name)
        benchmark.run(tell)
        stores = {s: list(Store(OUT / s / "results.jsonl").records.values()) for s in SERIES}
        write_csv(
            PAGE.with_suffix(".csv"),
            [{"set": s, **record} for s, every in stores.items() for record in every],
        )
        PAGE.write_text(page({s: every for s, every in stores.items() if every}), encoding="utf-8")


if __name__ == "__main__":
    main()
