"""``edge-tsad bench``: a detector and its peers on labelled series, measured honestly."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from edge_tsad.cli.listed import lines_of
from edge_tsad.cli.workstation import needs
from edge_tsad.evaluation.benchmark import Benchmark, Settings
from edge_tsad.evaluation.ledger import Ledger, current_commit
from edge_tsad.evaluation.report import last_line, machine, markdown, write_csv
from edge_tsad.evaluation.sets import load_set
from edge_tsad.evaluation.shipped import choose_candidates
from edge_tsad.evaluation.store import Record
from edge_tsad.evaluation.summary import totals
from edge_tsad.training.effort import FAST, THOROUGH

__all__ = ["command"]

REPORT = "report"


def words(_context: click.Context, _option: click.Parameter, values: Sequence[str]) -> list[str]:
    """``a,b`` and repeated options as one list."""
    return [word.strip() for value in values for word in value.split(",") if word.strip()]


def listed(context: click.Context, option: click.Parameter, values: Sequence[str]) -> list[str]:
    """As ``words``; ``@FILE`` stands for the lines of a file."""
    lines = [line for value in values for line in lines_of(value, "--series")]
    found = words(context, option, lines)
    if values and not found:
        raise click.BadParameter("names no series; leave it out for all of them")
    return found


def numbers(context: click.Context, option: click.Parameter, values: Sequence[str]) -> list[int]:
    """``0,1,2`` as whole numbers from 0 on."""
    try:
        found = [int(word) for word in words(context, option, values)]
    except ValueError:
        found = []
    if not found or min(found) < 0:
        raise click.BadParameter("give whole numbers from 0 on, such as 0,1,2")
    return list(dict.fromkeys(found))


def limit(_context: click.Context, _option: click.Parameter, seconds: float) -> float:
    """Seconds, 0 for none; no NaN."""
    if not (math.isfinite(seconds) and seconds >= 0):
        raise click.BadParameter("give seconds, 0 for no limit")
    return seconds


def folder(_context: click.Context, _option: click.Parameter, path: Path) -> Path:
    """A folder that is there from now on: hours of fitting must not end in an error."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise click.BadParameter(f"{path} cannot be written to: {error.strerror}") from error


@click.command("bench", short_help="Measure detectors on labelled series.")
@click.argument("set_or_npz", metavar="SET_OR_NPZ")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path(),
    envvar="EDGE_TSAD_DATA",
    show_envvar=True,
    help="Folder in which sets are looked up by name.",
)
@click.option(
    "--series",
    multiple=True,
    callback=listed,
    help="Only these; NAME,NAME, or @FILE with a name a line.",
)
@click.option("--half", help="tune (default where a set has halves) or report.")
@click.option(
    "--detector",
    "detectors",
    multiple=True,
    callback=words,
    default=("coad",),
    show_default=True,
    help="Detectors and peers; the others are compared with the first.",
)
@click.option("--peers", is_flag=True, help="Add all peers.")
@click.option(
    "--encoder", "encoders", multiple=True, callback=words, help="Each for each detector."
)
@click.option("--fast", is_flag=True, help="Besides, each detector fitted as by train --fast.")
@click.option("--thorough", is_flag=True, help="Besides, each detector fitted as by --thorough.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Of the detectors.")
@click.option(
    "--jobs", type=click.IntRange(0), default=1, show_default=True, help="At a time; 0 = all cores."
)
@click.option(
    "--engine",
    type=click.Choice(["joblib", "dask"]),
    default="joblib",
    show_default=True,
    help="What runs the jobs: processes, or a local Dask cluster.",
)
@click.option("--seed", "seeds", multiple=True, callback=numbers, default=("0",), show_default=True)
@click.option(
    "--timeout",
    type=float,
    callback=limit,
    default=1800.0,
    show_default=True,
    help="Seconds a series; 0 = any time.",
)
@click.option("--board", is_flag=True, help="Add the full-series protocol of the TSB-AD board.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    callback=folder,
    default=Path("build/bench"),
    show_default=True,
)
@click.option(
    "--ledger",
    type=click.Path(path_type=Path),
    default=Path("benchmarks/ledger.csv"),
    show_default=True,
    help="Where each run of a reported half is entered.",
)
def command(
    *,
    set_or_npz: str,
    data: Path,
    series: list[str],
    half: str | None,
    detectors: list[str],
    peers: bool,
    encoders: list[str],
    fast: bool,
    thorough: bool,
    options: tuple[str, ...],
    jobs: int,
    engine: str,
    seeds: list[int],
    timeout: float,
    board: bool,
    out: Path,
    ledger: Path,
) -> None:
    r"""Measure detectors on SET_OR_NPZ: the name of a set, its NPZ file, or a folder of CSV files.

    A CSV file needs a column of labels (0 or 1) and a first fifth without anomalies. Results lie in
    DIR as results.jsonl (a stopped run goes on from it), results.csv and report.md.

    \b
    Example:
      edge-tsad bench UCR --data sets --detector coad,matrix-profile,kmeans-ad --jobs 2
      edge-tsad bench UCR --data sets --series @benchmarks/tune24.txt --seed 0,1,2
      edge-tsad bench my-machines/ --peers --jobs 0
    """
    if engine == "dask":
        with needs("dask"):
            import distributed  # noqa: F401 - fails here if the package is missing
    cores = os.cpu_count() or 1
    jobs = jobs or cores
    chosen = load_set(set_or_npz, data).choose(series, half)
    candidates = choose_candidates(
        detectors,
        encoders=encoders,
        efforts=[FAST] * fast + [THOROUGH] * thorough,
        peers=peers,
        options=options,
        # A worker of Dask may have no processes of its own.
        processes=1 if engine == "dask" else max(1, cores // jobs),
    )
    settings = Settings(tuple(seeds), jobs, timeout, board, engine)
    with needs("bench"):
        for candidate in candidates:
            candidate.check()
        benchmark = Benchmark(chosen, candidates, settings, out)
    names = ",".join(candidate.name for candidate in candidates)
    entry = (chosen.name, benchmark.digest, len(chosen.series), names)
    reported = half == REPORT
    if reported:
        Ledger(ledger).begin(*entry)
    for name, reason in chosen.left_out.items():
        click.echo(f"left out: {name}: {reason}", err=True)
    records = benchmark.run(lambda *progress: show(*progress, figures=not reported))
    if reported:
        Ledger(ledger).finish(*entry, headline(records))
    write(out, benchmark, records)
    click.echo(last_line(records))


def show(done: int, every: int, record: Record, *, figures: bool) -> None:
    """One line of progress, without figures where they must be entered first."""
    result = f"{record['status']} {record['reason']}".strip()
    if figures and "acc1" in record:
        result += f" Acc@1 {record['acc1']:.0f} VUS-PR {record['vus_pr']:.3f}"
    who = f"{record['candidate']} seed {record['seed']}"
    click.echo(f"[{done}/{every}] {who} {record['series']}: {result}", err=True)


def headline(records: list[Record]) -> dict[str, float]:
    """Acc@1 and VUS-PR of each candidate."""
    return {
        f"{total.candidate}.{figure}": total.means[figure].value
        for total in totals(records)
        for figure in ("acc1", "vus_pr")
    }


def write(out: Path, benchmark: Benchmark, records: list[Record]) -> None:
    """results.csv and report.md; no path of this machine is in them."""
    chosen, settings = benchmark.chosen, benchmark.settings
    write_csv(out / "results.csv", records)
    half = ", ".join(sorted({record["half"] for record in records} - {""}))
    title = f"Benchmark on {chosen.name}" + (f", half {half}" if half else "")
    seeds = ",".join(map(str, settings.seeds))
    lines = [f"- commit: {current_commit()}, settings {benchmark.digest}", *machine()]
    lines += [f"- seeds {seeds}; time-out {settings.timeout_s:g} s"]
    lines += [f"- {settings.jobs} jobs at a time, by {settings.engine}"]
    (out / "report.md").write_text(
        markdown(title, records, chosen.left_out, lines), encoding="utf-8"
    )
