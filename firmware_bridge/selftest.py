"""The golden windows through this machine's own runtimes, in a process of their own."""

from __future__ import annotations

from pathlib import Path

from edge_tsad.errors import EdgeTsadError
from edge_tsad.runtime.apart import choose_apart

__all__ = ["run_self_test"]


def run_self_test(path: Path) -> str:
    """Test the bundle at ``path``; returns what was found, as a sentence.

    Raises:
        BundleError: no file of it computes the scores of the float model.
        BackendError: no runtime here can run it, or the runtime crashed or hung.
    """
    verdict = choose_apart(path)
    try:
        chosen = verdict.require()
    except EdgeTsadError as e:
        raise type(e)(f"the self-test failed: {e}") from e
    text = (
        f"{chosen.windows} golden windows of {chosen.path} passed on {chosen.runtime} "
        f"{chosen.version}, the worst at {chosen.worst:.2g} of its bound; {verdict.why}"
    )
    failed = [f"{one.label}: {one.problem}" for one in verdict.trials if one.path and one.problem]
    return "; not used: ".join([text, *failed])
