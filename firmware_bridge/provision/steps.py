"""Running the programs that gather what travels: pip, apt and their like."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_tsad.errors import TransportError

__all__ = ["run_step"]

LIMIT_S = 900.0
LAST_LINES = 4


def run_step(
    what: str,
    command: Sequence[str | Path],
    *,
    timeout_s: float = LIMIT_S,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Standard output of ``command``; ``env`` is added to this process's variables.

    Raises:
        TransportError: it could not be started, failed, or took longer than ``timeout_s`` seconds;
            ``what`` says in the sentence what it was to do.
    """
    try:
        done = subprocess.run(
            [str(part) for part in command],
            env={**os.environ, **(env or {})},
            cwd=cwd,
            text=True,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise TransportError(f"could not {what}: took more than {timeout_s:.0f} s") from e
    except OSError as e:
        raise TransportError(f"could not {what}: {e}") from e
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise TransportError(f"could not {what}: {' | '.join(lines[-LAST_LINES:])}")
    return done.stdout
