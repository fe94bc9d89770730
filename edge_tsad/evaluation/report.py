"""Results as CSV, one row per series, candidate and seed, and as Markdown for people."""

from __future__ import annotations

import csv
import importlib.metadata
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from edge_tsad import __version__
from edge_tsad.evaluation.store import Record
from edge_tsad.evaluation.summary import Alarms, Estimate, Total, difference, totals

__all__ = ["last_line", "machine", "markdown", "write_csv"]

_PACKAGES = ("numpy", "torch", "onnxruntime", "ai-edge-litert", "aeon", "stumpy")
_COMPARED = {"acc1": "Acc@1", "vus_pr": "VUS-PR"}


def write_csv(path: Path, records: Sequence[Record]) -> None:
    """All records; a figure that one has and another has not is empty there."""
    columns = list(dict.fromkeys(column for record in records for column in record))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


def last_line(records: Sequence[Record]) -> str:
    """``Acc@1 … VUS-PR … n=…`` of the first candidate."""
    first = totals(records)[0]
    acc, vus = first.means["acc1"].value, first.means["vus_pr"].value
    return f"Acc@1 {acc:.3f} VUS-PR {vus:.3f} n={first.series}"


def markdown(
    title: str, records: Sequence[Record], left_out: Mapping[str, str], notes: Sequence[str] = ()
) -> str:
    """The report; ``left_out`` gives the reason of each series that never came to a candidate."""
    every = totals(records)
    left = dict(left_out) | {
        record["series"]: record["reason"] for record in records if record["status"] == "left out"
    }
    normal = {record["series"] for record in records if record["status"] == "normal"}
    sections = [
        [f"# {title}", "", *notes],
        _accuracy(every),
        _seeds(every),
        _differences(records, every),
        _alarms(every),
        _costs(every),
        _board(every),
        _misses(records),
        _left_out(left, normal),
        [last_line(records)],
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def machine() -> list[str]:
    """Versions and machine, as lines of the report."""
    versions = [f"edge-tsad {__version__}", f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return [
        f"- versions: {', '.join(versions)}",
        f"- machine: {_processor()}, {os.cpu_count()} cores, {platform.system()}",
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    body = ["| " + " | ".join(cells) + " |" for cells in rows]
    return ["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *body]


def _label(total: Total) -> str:
    return f"{total.candidate} (sees the future)" if total.sees_future else total.candidate


def _with_interval(estimate: Estimate) -> str:
    if math.isnan(estimate.low):
        return _three(estimate.value)
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _accuracy(every: Sequence[Total]) -> list[str]:
    header = ["", "n", "missed runs", "Acc@1", "@3", "@5", "loose @1/3/5", "VUS-PR", "AUC-PR"]
    header += ["best F1 (oracle threshold)", "VUS-PR over chance"]
    rows = []
    for total in every:
        means = {name: estimate.value for name, estimate in total.means.items()}
        loose = "/".join(f"{means[f'acc{count}_loose']:.2f}" for count in (1, 3, 5))
        row = [_label(total), str(total.series), str(total.misses)]
        row += [_with_interval(total.means["acc1"]), f"{means['acc3']:.3f}", f"{means['acc5']:.3f}"]
        row += [loose, _with_interval(total.means["vus_pr"]), f"{means['auc_pr']:.3f}"]
        rows.append([*row, f"{means['best_f1']:.3f}", _with_interval(total.corrected)])
    floors = every[0].floors
    chance = ["*a random score*", "", "", f"{floors['acc1']:.3f}", f"{floors['acc3']:.3f}"]
    chance += [f"{floors['acc5']:.3f}", "", f"{floors['vus_pr']:.3f}", f"{floors['auc_pr']:.3f}"]
    rows.append([*chance, f"{floors['best_f1']:.3f}", "0"])
    words = (
        "Test part only; misses count as 0. Acc@k within 100 points, loose within max(100, "
        "length). In brackets 95 % intervals by bootstrap over recordings."
    )
    return ["## Accuracy", "", words, "", *_table(header, rows)]


def _seeds(every: Sequence[Total]) -> list[str]:
    rows = []
    for total in every:
        found = list(total.seeds.items())
        if len(found) < 2:
            continue
        rows += [[_label(total), str(seed), *map(_three, figures)] for seed, figures in found]
        spread = [max(some) - min(some) for some in zip(*total.seeds.values(), strict=True)]
        rows.append([_label(total), "*spread*", *map(_three, spread)])
    return ["## Seeds", "", *_table(["", "seed", "Acc@1", "VUS-PR"], rows)] if rows else []


def _three(figure: float) -> str:
    return "-" if math.isnan(figure) else f"{figure:.3f}"


def _differences(records: Sequence[Record], every: Sequence[Total]) -> list[str]:
    first = every[0].candidate
    rows = []
    for total in every[1:]:
        found = [difference(records, first, total.candidate, figure) for figure in _COMPARED]
        cells = ["-" if estimate is None else _with_interval(estimate) for estimate in found]
        rows.append([_label(total), *cells])
    title = f"## {first} minus peer (paired)"
    return [title, "", *_table(["peer", *_COMPARED.values()], rows)] if rows else []


def _alarms(every: Sequence[Total]) -> list[str]:
    header = ["", "calibration", "runs", "regions found", "openings that hit", "near", "false"]
    header += ["normal points", "false per 10,000", "where promised", "promised"]
    header += ["inside interval", "in it or below", "count inside its own"]
    header += ["detection delay (points, median)"]
    rows = []
    for total in every:
        if total.alarms is None:
            continue
        rows.append(_alarm_row(_label(total), "*all*", total.alarms))
        rows += [_alarm_row("", state, alarms) for state, alarms in total.states.items()]
    words = (
        "Openings at the shipped threshold: a hit is within 100 points of an anomaly, a false one "
        "more than a window away. *Inside interval*: runs (series and seeds) whose achieved rate "
        "lies in the promised 90 % interval of the rate, of those that promise one; *in it or "
        "below*: those with fewer alarms than promised as well; *count inside its own*: whose "
        "count lies in the promised 90 % interval of the count, in which there is the chance of "
        "counting few events as well. What is UNCALIBRATED promises no rate: in its row it is "
        "judged by the bound it states, and in *all* not at all."
    )
    return ["## Alarms", "", words, "", *_table(header, rows)] if rows else []


def _alarm_row(who: str, state: str, alarms: Alarms) -> list[str]:
    row = [who, state, str(alarms.runs), f"{alarms.regions_found}/{alarms.regions}"]
    row += [str(alarms.hit), str(alarms.near), str(alarms.false), f"{alarms.points:,}"]
    row += [_three(alarms.rate), _three(alarms.rate_stated), _three(alarms.promised)]
    agreeing = (alarms.inside, alarms.not_above, alarms.inside_count)
    row += [_share(count, alarms.stated) for count in agreeing]
    return [*row, "-" if math.isnan(alarms.delay) else f"{alarms.delay:.0f}"]


def _share(part: int, whole: int) -> str:
    return f"{part}/{whole} ({part / whole:.0%})" if whole else "-"


def _costs(every: Sequence[Total]) -> list[str]:
    header = ["", "fit s (median)", "fit s (worst)", "points per s (median)", "parameters"]
    rows = []
    for total in every:
        row = [_label(total), f"{total.fit_s:.1f}", f"{total.fit_worst_s:.1f}"]
        rows.append([*row, f"{total.points_per_s:,.0f}", f"{total.parameters:,}"])
    return ["## Cost", "", *_table(header, rows)]


def _board(every: Sequence[Total]) -> list[str]:
    rows = [[_label(total), _with_interval(total.board)] for total in every if total.board]
    if not rows:
        return []
    words = "History and test as one series, window from all of it; not comparable with the above."
    title = "## VUS-PR by the protocol of the TSB-AD board"
    return [title, "", words, "", *_table(["", "VUS-PR"], rows)]


def _misses(records: Sequence[Record]) -> list[str]:
    lines = [
        f"- {record['candidate']}, {record['series']}, seed {record['seed']}: {record['reason']}"
        for record in records
        if record["status"] == "miss"
    ]
    return ["## Misses", "", *lines] if lines else []


def _left_out(left_out: Mapping[str, str], normal: set[str]) -> list[str]:
    lines = [f"- {name}: {reason}" for name, reason in sorted(left_out.items())]
    if normal:
        lines.append(f"- {len(normal)} series with nothing to find count for alarms only")
    return [f"## Left out: {len(left_out)} series", "", *lines] if lines else []
