"""Choosing a bundle's model file in a process of its own.

A runtime that meets a model it cannot run may take its process down, and a bundle that is only
looked at need not be trusted yet: whoever asks lives on and can say so. Nor does a gateway keep in
its memory what it only tried. The process prints one JSON line and is killed after a time.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_tsad.bundle import open_bundle
from edge_tsad.decode import Json, decode, encode, shorten
from edge_tsad.errors import BackendError, BundleError, EdgeTsadError
from edge_tsad.runtime.choosing import Trial, none_left, pick, try_files

__all__ = ["Verdict", "choose_apart"]

LIMIT_S = 120.0
EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What can run here.

    ``chosen`` and ``why`` are None and empty where nothing can; ``problem`` then says why in a
    sentence, and ``missing`` whether no runtime could open any file.
    """

    chosen: Trial | None = None
    why: str = ""
    trials: tuple[Trial, ...] = ()
    problem: str = ""
    missing: bool = False

    def require(self) -> Trial:
        """What is used.

        Raises:
            BackendError: no runtime here can run any file.
            BundleError: no file computes here what it should, or the bundle is damaged.
        """
        if self.chosen is None:
            raise (BackendError if self.missing else BundleError)(self.problem)
        return self.chosen


def nothing() -> None:
    """What is done meanwhile where nobody waits."""


def choose_apart(
    path: Path,
    *,
    threads: int = 1,
    backend: str | None = None,
    meanwhile: Callable[[], None] = nothing,
) -> Verdict:
    """What :func:`edge_tsad.runtime.choosing.choose` says of the bundle at ``path``.

    Args:
        path: the bundle.
        threads: threads one inference may use.
        backend: the only runtime to use; None tries all.
        meanwhile: called every second until the process has ended, which it does within 120 s.

    Raises:
        BackendError: the process could not be started, did not end, or a runtime crashed in it.
    """
    command = [sys.executable, "-P", "-m", "edge_tsad.runtime.apart"]
    command += [str(path), str(threads), backend or ""]
    try:
        done = run(command, meanwhile)
    except subprocess.TimeoutExpired as e:
        raise BackendError(f"the self-test did not end within {LIMIT_S:.0f} s") from e
    except OSError as e:
        raise BackendError(f"the self-test could not be started: {e}") from e
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise BackendError(f"the inference runtime crashed in the self-test ({name})")
    try:
        return decode(Verdict, json.loads(done.stdout.splitlines()[-1]), "verdict", BackendError)
    except (IndexError, ValueError, BackendError) as e:
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise BackendError(f"the self-test failed: {shorten(last, 200)}") from e


def run(command: list[str], meanwhile: Callable[[], None]) -> subprocess.CompletedProcess[bytes]:
    """What the command said.

    Raises:
        subprocess.TimeoutExpired: it did not end within its time, and was killed.
        OSError: it could not be started.
    """
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        end_s = time.monotonic() + LIMIT_S
        while True:
            try:
                out, err = process.communicate(timeout=min(EVERY_S, LIMIT_S))
            except subprocess.TimeoutExpired:
                if time.monotonic() >= end_s:
                    process.kill()
                    raise
                meanwhile()
            else:
                return subprocess.CompletedProcess(command, process.returncode, out, err)


def examine(path: Path, threads: int, backend: str | None) -> Verdict:
    """The same in this process; errors become a verdict."""
    try:
        trials, opened = try_files(open_bundle(path), threads=threads, backend=backend)
    except EdgeTsadError as e:
        return Verdict(problem=str(e))
    if not opened:
        error = none_left(trials)
        missing = isinstance(error, BackendError)
        return Verdict(trials=trials, problem=str(error), missing=missing)
    chosen, why = pick(trials)
    return Verdict(chosen, why, trials)


def main() -> None:
    """Print the verdict on the bundle, by the threads and the runtime, of the command line."""
    path, threads, backend = sys.argv[1:]
    verdict: Json = encode(examine(Path(path), int(threads), backend or None))
    sys.stdout.write(json.dumps(verdict) + "\n")


if __name__ == "__main__":
    main()
