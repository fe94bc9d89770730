"""Where the series of a benchmark are fitted: processes of this machine, by one library or other.

Both are joblib's backends, so that ``joblib.Parallel`` inside is one and the same. An engine is a
context manager ``engine(jobs)``; inside, `Parallel` uses its workers, and the value is the
exception that tells of a worker which died.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from joblib import parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError

__all__ = ["ENGINES", "Engine"]

Engine = Callable[[int], AbstractContextManager[type[Exception]]]


@contextmanager
def _processes(jobs: int) -> Iterator[type[Exception]]:
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with parallel_config(backend="loky", n_jobs=jobs, inner_max_num_threads=threads):
        yield TerminatedWorkerError


@contextmanager
def _dask(jobs: int) -> Iterator[type[Exception]]:
    """A scheduler and ``jobs`` workers on loopback; the same tasks go to any other cluster."""
    import dask  # noqa: PLC0415 - an extra of its own
    from distributed import Client, LocalCluster  # noqa: PLC0415
    from distributed.scheduler import KilledWorker  # noqa: PLC0415

    # A task whose worker died is not tried on others: it would take them with it.
    once = {"distributed.scheduler.allowed-failures": 0}
    with (
        dask.config.set(once),
        LocalCluster(
            n_workers=jobs,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
        ) as cluster,
        Client(cluster),
        parallel_config(backend="dask", n_jobs=jobs),
    ):
        yield KilledWorker


ENGINES: Mapping[str, Engine] = {"joblib": _processes, "dask": _dask}
