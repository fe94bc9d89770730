"""Choosing a bundle's model file in a process of its own.

A runtime that meets a model it cannot run may take its process down, and a bundle that is only
looked at need not be trusted yet: whoever asks lives on and can say so. The process prints one JSON
line and is killed after a time.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edge_tsad.bundle import open_bundle
from edge_tsad.decode import Json, decode, encode, shorten
from edge_tsad.errors import BackendError, EdgeTsadError
from edge_tsad.runtime.choosing import Trial, none_left, pick, try_files

__all__ = ["Verdict", "choose_apart"]

LIMIT_S = 120.0


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


def choose_apart(path: Path) -> Verdict:
    """What :func:`edge_tsad.runtime.choosing.choose` says of the bundle at ``path``.

    Raises:
        BackendError: the process could not be started, did not end, or a runtime crashed in it.
    """
    command = [sys.executable, "-P", "-m", "edge_tsad.runtime.apart", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=LIMIT_S, check=False)
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


def examine(path: Path) -> Verdict:
    """The same in this process; errors become a verdict."""
    try:
        trials, opened = try_files(open_bundle(path))
    except EdgeTsadError as e:
        return Verdict(problem=str(e))
    if not opened:
        error = none_left(trials)
        missing = isinstance(error, BackendError)
        return Verdict(trials=trials, problem=str(error), missing=missing)
    chosen, why = pick(trials)
    return Verdict(chosen, why, trials)


def main() -> None:
    """Print the verdict on the bundle that is named on the command line."""
    verdict: Json = encode(examine(Path(sys.argv[1])))
    sys.stdout.write(json.dumps(verdict) + "\n")


if __name__ == "__main__":
    main()
