"""Which model file of a bundle runs here: one that computes what it should, and the fastest.

Every file is opened in every runtime that is here and is meant for it, and answers the bundle's
golden windows. Those that pass are timed on the same windows, one window at a time as in a live
stream and in turns, so that a busy moment burdens all of them alike. Timing is no part of the core:
a gateway does this once before its streams start.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from edge_tsad.bundle.archive import Bundle
from edge_tsad.bundle.golden import GoldenWindows, self_test
from edge_tsad.bundle.manifest import ModelFile
from edge_tsad.errors import BackendError, BundleError
from edge_tsad.registry import BACKENDS
from edge_tsad.runtime.backends.base import Backend
from edge_tsad.runtime.backends.checks import missing_package
from edge_tsad.runtime.backends.select import open_file

__all__ = ["Choice", "Trial", "choose", "none_left", "pick", "reopen", "try_files"]

ROUNDS = 30
LEAST_ROUNDS = 3
TIMED_S = 1.0
"""Every file is timed ``ROUNDS`` times, or fewer once all of it has taken this long."""

ALIKE = 1.1
"""Times that differ by less than this factor are equal: the order of the manifest decides, so that
the choice does not hang on noise."""


@dataclass(frozen=True, slots=True)
class Trial:
    """How a model file did in a runtime here.

    ``path`` is empty where the runtime itself cannot be used, ``version`` where it is not there.
    ``windows`` counts the golden windows that were run; ``worst`` is the largest deviation on them
    as a multiple of what is allowed, None where there is no such number. ``problem`` says in a
    sentence why the file is not used, and is empty where it could be. ``median_ms`` is for one
    window, None where it was not timed.
    """

    path: str
    runtime: str
    version: str
    windows: int = 0
    worst: float | None = None
    problem: str = ""
    median_ms: float | None = None

    @property
    def label(self) -> str:
        """The file and the runtime, for sentences."""
        where = f"{self.runtime} {self.version}".rstrip()
        return f"{self.path} on {where}" if self.path else where


@dataclass(frozen=True, slots=True)
class Choice:
    """What is used, why, and how everything else did; ``backend`` is open."""

    chosen: Trial
    why: str
    trials: tuple[Trial, ...]
    backend: Backend = field(repr=False)


def choose(bundle: Bundle, *, threads: int = 1, backend: str | None = None) -> Choice:
    """Try every file in every runtime here and take the fastest that passes.

    Args:
        bundle: whose files are tried.
        threads: threads one inference may use.
        backend: the only runtime to use; None tries all.

    Raises:
        BackendError: no file can be run here; the sentence says why for each.
        BundleError: files run here and none computes what it should, or the golden windows are
            damaged.
        ConfigError: ``backend`` is unknown.
    """
    trials, opened = try_files(bundle, threads=threads, backend=backend)
    if not opened:
        raise none_left(trials)
    chosen, why = pick(trials)
    return Choice(chosen, why, trials, opened[chosen.label])


def try_files(
    bundle: Bundle, *, threads: int = 1, backend: str | None = None
) -> tuple[tuple[Trial, ...], dict[str, Backend]]:
    """How every file did in every runtime, and the open backends of those that passed, by label.

    Raises:
        BundleError: the golden windows are damaged.
        ConfigError: ``backend`` is unknown.
    """
    trials: list[Trial] = []
    opened: dict[str, Backend] = {}
    for trial, ready in _attempts(bundle, threads, [backend] if backend else list(BACKENDS)):
        trials.append(trial)
        if ready is not None:
            opened[trial.label] = ready
    times = _medians_ms(GoldenWindows.of(bundle), opened)
    timed = (dataclasses.replace(one, median_ms=times.get(one.label)) for one in trials)
    return tuple(timed), opened


def reopen(bundle: Bundle, path: str, runtime: str, *, threads: int = 1) -> Choice | None:
    """Open what was chosen before; None where it does not pass its golden windows any more.

    Raises:
        BundleError: the golden windows are damaged.
    """
    file = next((file for file in bundle.manifest.files if file.path == path), None)
    if file is None or runtime not in tuple(BACKENDS):
        return None
    trial, ready = _attempt(bundle, file, runtime, threads)
    if ready is None:
        return None
    return Choice(trial, "the fastest when this bundle was first opened here", (trial,), ready)


def none_left(trials: tuple[Trial, ...]) -> BackendError | BundleError:
    """The error for a bundle of which nothing passed: a runtime is missing, or scores are wrong."""
    ran = [trial for trial in trials if trial.windows]
    told = "; ".join(
        dict.fromkeys(f"{trial.label}: {trial.problem}" for trial in ran or trials if trial.problem)
    )
    if ran:
        return BundleError(
            f"no model file of the bundle computes here what it should: {told}; export it again, "
            "or install another runtime"
        )
    return BackendError(f"no model file of the bundle runs here: {told}")


def pick(trials: tuple[Trial, ...]) -> tuple[Trial, str]:
    """The first of the timed ``trials`` (at least one) that is about as fast as the fastest."""
    timed = {trial: trial.median_ms for trial in trials if trial.median_ms is not None}
    fastest = min(timed.values())
    chosen, median = next(item for item in timed.items() if item[1] <= ALIKE * fastest)
    others = len(timed) - 1
    if not others:
        return chosen, "the only one that passed its golden windows"
    if median > fastest:
        share = round(100 * (median / fastest - 1))
        return chosen, f"listed first among those within 10 % of the fastest ({share} % slower)"
    return chosen, f"the fastest of {len(timed)} that passed their golden windows"


def _attempts(
    bundle: Bundle, threads: int, runtimes: list[str]
) -> Iterator[tuple[Trial, Backend | None]]:
    """Every file in every runtime, in the order of preference; a backend for those that pass."""
    for name in runtimes:
        kind = BACKENDS[name]
        version = kind.version()
        wanted = [file for file in bundle.manifest.files if file.format in kind.formats]
        unusable = ""
        if version is None:
            unusable = _without(name, missing_package(name, kind.extra))
        elif not wanted:
            unusable = f"the bundle has no {' or '.join(kind.formats)} file"
        if unusable:
            yield Trial("", name, version or "", problem=unusable), None
            continue
        for file in wanted:
            yield _attempt(bundle, file, name, threads)


def _attempt(
    bundle: Bundle, file: ModelFile, name: str, threads: int
) -> tuple[Trial, Backend | None]:
    """Open one file in one runtime and run its golden windows."""
    manifest = bundle.manifest
    shape = (manifest.timing.window, len(manifest.channels))
    trial = Trial(file.path, name, BACKENDS[name].version() or "")
    try:
        backend = open_file(name, file, bundle.read, shape=shape, threads=threads)
        result = self_test(bundle, file, backend)
    except BackendError as error:
        return dataclasses.replace(trial, problem=_without(name, error)), None
    worst = result.worst if math.isfinite(result.worst) else None
    trial = dataclasses.replace(trial, windows=result.windows, worst=worst, problem=result.problem)
    return trial, backend if result.passed else None


def _without(name: str, error: BackendError) -> str:
    """The message without the name of the runtime, which stands beside it."""
    return str(error).removeprefix(f"{name}: ")


def _medians_ms(golden: GoldenWindows, backends: dict[str, Backend]) -> dict[str, float]:
    """Median time of one window for each of ``backends``, which have run before."""
    times: dict[str, list[float]] = {label: [] for label in backends}
    begun = time.perf_counter()
    for turn in range(ROUNDS):
        if turn >= LEAST_ROUNDS and time.perf_counter() - begun > TIMED_S:
            break
        row = slice(turn % len(golden.score), turn % len(golden.score) + 1)
        for label, backend in backends.items():
            start = time.perf_counter()
            backend.score(golden.window[row], golden.observed[row])
            times[label].append(time.perf_counter() - start)
    return {label: 1e3 * statistics.median(taken) for label, taken in times.items()}
