"""Where the series of a benchmark are fitted: processes of this machine, or a local Dask cluster.

An engine is called with the jobs that are to be done and how many may run at a time, and yields
their records as they come. A job whose process dies (out of memory, a crash in a library) costs
that job alone, and its record says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError

from edge_tsad.evaluation.store import Record

__all__ = ["ENGINES", "Engine", "Job"]


class Job(Protocol):
    """What an engine does; picklable. ``key`` is unique, and in the record of ``run``."""

    @property
    def key(self) -> str:
        """Its name."""

    def run(self) -> Record:
        """Do it."""

    def crashed(self) -> Record:
        """The record of a job whose process died."""


Engine = Callable[[Sequence[Job], int], Iterator[Record]]


def _processes(jobs: Sequence[Job], at_a_time: int) -> Iterator[Record]:
    finished: set[str] = set()
    try:
        for record in _pooled(jobs, at_a_time):
            finished.add(record["key"])
            yield record
    except TerminatedWorkerError:
        # Nobody knows which one it was: each of the rest gets a process to itself.
        for job in jobs:
            if job.key not in finished:
                yield _alone(job)


def _alone(job: Job) -> Record:
    try:
        # With one at a time there would be no other process.
        return next(_pooled([job], 2))
    except TerminatedWorkerError:
        return job.crashed()


def _pooled(jobs: Sequence[Job], at_a_time: int) -> Iterator[Record]:
    threads = max(1, (os.cpu_count() or 1) // at_a_time)
    with parallel_config(backend="loky", n_jobs=at_a_time, inner_max_num_threads=threads):
        yield from Parallel(return_as="generator_unordered")(delayed(_run)(job) for job in jobs)


def _dask(jobs: Sequence[Job], at_a_time: int) -> Iterator[Record]:
    """A scheduler and its workers on loopback; the same jobs go to any other cluster."""
    import dask  # noqa: PLC0415 - an extra of its own
    from distributed import Client, LocalCluster, as_completed  # noqa: PLC0415
    from distributed.scheduler import KilledWorker  # noqa: PLC0415

    # A job whose worker died is not tried on others: it would take them with it.
    once = {"distributed.scheduler.allowed-failures": 0}
    with (
        dask.config.set(once),
        LocalCluster(
            n_workers=at_a_time,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
        ) as cluster,
        Client(cluster) as client,
    ):
        futures = {client.submit(_run, job, key=job.key, pure=False): job for job in jobs}
        for future in as_completed(futures):
            if isinstance(future.exception(), KilledWorker):
                yield _alone(futures[future])  # jobs that waited at that worker are told the same
            else:
                yield future.result()


def _run(job: Job) -> Record:
    """What a worker is asked for: a function by name, which every pickle knows."""
    return job.run()


ENGINES: Mapping[str, Engine] = {"joblib": _processes, "dask": _dask}
