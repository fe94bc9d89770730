"""The golden windows through this machine's own runtime, in a process of their own.

A runtime that meets a model it cannot run may take its process down; the agent must live on and say
so. The process prints one JSON line and is killed after a time.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from edge_tsad.bundle import open_bundle, self_test
from edge_tsad.decode import shorten
from edge_tsad.errors import BackendError, BundleError, EdgeTsadError
from edge_tsad.runtime.backends.select import open_best

__all__ = ["run_self_test"]

LIMIT_S = 120.0


def run_self_test(path: Path) -> str:
    """Test the bundle at ``path``; returns what was found, as a sentence.

    Raises:
        BundleError: its scores are not those of the float model.
        BackendError: no runtime here can run it, or the runtime crashed or hung.
    """
    command = [sys.executable, "-P", "-m", "firmware_bridge.selftest", str(path)]
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
        found = json.loads(done.stdout.splitlines()[-1])
        problem, text = str(found["problem"]), str(found["text"])
    except (IndexError, KeyError, TypeError, ValueError) as e:
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise BackendError(f"the self-test failed: {shorten(last, 200)}") from e
    if problem:
        raise (BackendError if found["missing"] else BundleError)(
            f"the self-test failed: {problem}"
        )
    return text


def examine(path: Path) -> dict[str, object]:
    """What the process reports: ``problem`` (empty: none), ``text``, ``missing`` (no runtime)."""
    try:
        bundle = open_bundle(path)
        manifest = bundle.manifest
        shape = (manifest.timing.window, len(manifest.channels))
        choice = open_best(manifest.files, bundle.read, shape=shape)
        file = next(file for file in manifest.files if file.path == choice.path)
        result = self_test(bundle, file, choice.backend)
    except EdgeTsadError as e:
        return {"problem": str(e), "text": "", "missing": isinstance(e, BackendError)}
    text = (
        f"{result.windows} golden windows of {result.file} passed on {result.backend} "
        f"{choice.version}, the worst at {result.worst:.2g} of its bound"
    )
    problem = f"{result.file}: {result.problem}" if result.problem else ""
    return {"problem": problem, "text": text, "missing": False}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(examine(Path(sys.argv[1]))) + "\n")
