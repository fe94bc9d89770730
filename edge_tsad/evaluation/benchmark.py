"""One command over many series: fitted and scored in parallel, stopped and resumed at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_tsad.evaluation.candidates import Candidate
from edge_tsad.evaluation.engines import ENGINES
from edge_tsad.evaluation.figures import measure, missed, names_of
from edge_tsad.evaluation.labelled import LabelledSeries, LabelledSet
from edge_tsad.evaluation.store import Record, Store, code_digest, digest_of, series_digest

__all__ = ["Benchmark", "Progress", "Settings", "Task"]

Progress = Callable[[int, int, Record], None]
"""Called as ``progress(done, all, record)`` after each result, those found on disk included."""

_MEASURING = ("evaluation", "training", "runtime/openings", "runtime/open_cells", "types")
"""Source that decides any figure, of peers as well; whole folders, so that none is forgotten."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a benchmark is run.

    ``timeout_s`` is for the fit and the scoring of one series (0 = none), ``jobs`` how many run at
    a time, and ``engine`` of `ENGINES` where; ``board`` adds the full-series protocol of the TSB-AD
    board.
    """

    seeds: tuple[int, ...] = (0,)
    jobs: int = 1
    timeout_s: float = 0.0
    board: bool = False
    engine: str = "joblib"


@dataclass(frozen=True, slots=True)
class Task:
    """One series, candidate and seed; ``key`` is the digest of all that its figures depend on."""

    key: str
    series: LabelledSeries
    candidate: Candidate
    seed: int
    settings: Settings

    def run(self) -> Record:
        """The figures, with the key."""
        limit, board = self.settings.timeout_s, self.settings.board
        figures = measure(self.candidate, self.series, self.seed, timeout_s=limit, board=board)
        return figures | {"key": self.key}

    @property
    def names(self) -> Record:
        """What no figure depends on; a record on disk may have older ones."""
        return names_of(self.candidate, self.series)

    def crashed(self) -> Record:
        """The record of a task whose process died."""
        reason = "its process ended (out of memory, or a crash)"
        return missed(self.candidate, self.series, self.seed, reason) | {"key": self.key}


class Benchmark:
    """Candidates on the series of one set.

    Args:
        chosen: the series.
        candidates: the first is what the others are compared with.
        settings: seeds, jobs, time-out.
        out: folder of ``results.jsonl``.
    """

    def __init__(
        self, chosen: LabelledSet, candidates: Sequence[Candidate], settings: Settings, out: Path
    ) -> None:
        self.chosen, self.candidates, self.settings = chosen, tuple(candidates), settings
        self.store = Store(out / "results.jsonl")
        # One task for each key: what was asked for twice is measured once.
        self.tasks = list({task.key: task for task in self._tasks()}.values())

    def _tasks(self) -> Iterator[Task]:
        described = [candidate.settings() for candidate in self.candidates]
        for series in self.chosen.series:
            data = series_digest(series)
            for candidate, facts in zip(self.candidates, described, strict=True):
                for seed in self.settings.seeds if candidate.random else self.settings.seeds[:1]:
                    key = digest_of(
                        {
                            "code": code_digest(*_MEASURING),
                            "numpy": np.__version__,
                            "data": data,
                            "series": series.name,
                            "candidate": facts,
                            "seed": seed,
                            "timeout_s": self.settings.timeout_s,
                            "board": self.settings.board,
                        }
                    )
                    yield Task(key, series, candidate, seed, self.settings)

    @property
    def digest(self) -> str:
        """Of everything that all figures depend on."""
        return digest_of({"keys": sorted(task.key for task in self.tasks)})

    def run(self, progress: Progress | None = None) -> list[Record]:
        """The records of all tasks in their order; those on disk are not computed again."""
        missing = [task for task in self.tasks if task.key not in self.store.records]
        done = len(self.tasks) - len(missing)
        for record in self._computed(missing):
            self.store.add(record)
            done += 1
            if progress is not None:
                progress(done, len(self.tasks), record)
        return [self.store.records[task.key] | task.names for task in self.tasks]

    def _computed(self, tasks: list[Task]) -> Iterator[Record]:
        if self.settings.jobs == 1 and self.settings.engine == "joblib":
            return (task.run() for task in tasks)
        return ENGINES[self.settings.engine](tasks, self.settings.jobs)
