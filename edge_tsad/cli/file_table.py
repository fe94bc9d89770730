"""The one table that says what became of model files, and running several exports at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge_tsad.cli.tables import number, scheme_cell, table
from edge_tsad.cli.workstation import progress_bar
from edge_tsad.errors import EdgeTsadError, ExportError

if TYPE_CHECKING:
    from edge_tsad.bundle.manifest import ModelFile

__all__ = ["Tell", "file_table", "processors", "run_all"]

HEADER = (
    "file",
    "scheme",
    "bytes",
    "error max",
    "99.9 %",
    "alerts changed",
    "ms/window",
    "operators",
    "proven on",
    "runs on",
)

Job = TypeVar("Job")
Tell = Callable[[str, int, int], None]


def file_table(files: Iterable[ModelFile], prefix: str = "") -> list[list[str]]:
    """A row for each file; errors are in units of threshold − median normal score."""
    rows = []
    for entry in files:
        facts: Any = entry.parity
        alerts, operators = facts.get("alerts"), facts.get("operators", {})
        rows.append(
            [
                prefix + entry.path,
                scheme_cell(entry.scheme, facts),
                number(entry.size),
                f"{facts['max']:.2g}",
                f"{facts['p999']:.2g}",
                f"{alerts['changed']} of {alerts['expected']}" if alerts else "-",
                f"{facts['latency_ms']:.3g}",
                f"{sum(operators.values())} of {len(operators)} kinds",
                f"{facts['runtime']} {facts['runtime_version']}, {facts['machine']}",
                ", ".join(f"{name} ≥ {least}" for name, least in entry.runtimes.items()),
            ]
        )
    return rows


def run_all(
    jobs: Sequence[Job],
    work: Callable[[Job, Tell | None], list[list[str]]],
    names: Sequence[str],
    wrote: Callable[[Job], str],
    processes: int,
) -> None:
    """Do ``work`` on each of ``jobs`` and print one table of all rows, and what was written.

    One job shows its steps; several run in processes of their own and show which are done. What
    was refused stops no other.

    Raises:
        EdgeTsadError: a job failed; of several the sentences of all that did.
    """
    outcomes: list[list[list[str]] | EdgeTsadError] = []
    with progress_bar() as bar:
        task = bar.add_task(names[0], total=len(jobs), note="")
        if len(jobs) == 1:
            outcomes.append(
                _outcome(
                    work,
                    jobs[0],
                    lambda what, done, total: bar.update(
                        task, description=what, completed=done, total=total
                    ),
                )
            )
            if isinstance(outcomes[0], list):
                bar.update(task, completed=bar.tasks[0].total)
        else:
            from joblib import Parallel, delayed

            made = Parallel(n_jobs=min(processes, len(jobs)), return_as="generator")(
                delayed(_outcome)(work, job, None) for job in jobs
            )
            for name, outcome in zip(names, made, strict=True):
                outcomes.append(outcome)
                bar.update(task, description=name, advance=1)
    rows = [row for outcome in outcomes if isinstance(outcome, list) for row in outcome]
    if rows:
        click.echo("\n".join(table(HEADER, rows)))
    for job, outcome in zip(jobs, outcomes, strict=True):
        if isinstance(outcome, list):
            click.echo(wrote(job))
    failed = [
        (name, outcome)
        for name, outcome in zip(names, outcomes, strict=True)
        if isinstance(outcome, EdgeTsadError)
    ]
    if len(jobs) == 1 and failed:
        raise failed[0][1]
    if failed:
        words = "; ".join(f"{name}: {error}" for name, error in failed)
        raise ExportError(f"{len(failed)} of {len(jobs)} were not written: {words}")


def _outcome(
    work: Callable[[Job, Tell | None], list[list[str]]], job: Job, tell: Tell | None
) -> list[list[str]] | EdgeTsadError:
    try:
        return work(job, tell)
    except EdgeTsadError as error:
        return error


def processors() -> int:
    """How many may be used."""
    return len(os.sched_getaffinity(0))
