"""The ledger of reported runs: what is reported is run a few times, and each time is on record.

A run on the half that is reported is entered before it starts, and its figures are entered before
anybody is shown them. The same settings may be resumed; new ones are refused after ``MOST`` runs.
"""

from __future__ import annotations

import csv
import datetime
import io
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from edge_tsad.errors import ConfigError

__all__ = ["MOST", "Ledger", "current_commit"]

MOST = 5
"""Runs of the reported half of a set, each with settings of its own."""

_FIELDS = ("date", "commit", "set", "digest", "event", "series", "candidates", "figures")


def current_commit() -> str:
    """The commit of this program's checkout, ``+`` if changed since; ``unknown`` without one."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    place = Path(__file__).parent
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=place)
    return done.stdout.strip()


class Ledger:
    """A CSV file that is only ever appended to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[dict[str, str]]:
        """What has been entered, oldest first.

        Raises:
            ConfigError: the file is there and is no ledger.
        """
        if not self.path.exists():
            return []
        try:
            with self.path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                if tuple(reader.fieldnames or _FIELDS) == _FIELDS:
                    return list(reader)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise ConfigError(f"ledger: {self.path} cannot be read: {reason}") from error
        raise ConfigError(f"ledger: {self.path} is no ledger; name another file or none yet there")

    def begin(self, name: str, digest: str, series: int, candidates: str) -> None:
        """Enter a run of the set ``name`` that is about to start; a resumed one is there already.

        Raises:
            ConfigError: the set's reported half has been run with ``MOST`` other settings.
        """
        before = {row["digest"] for row in self.rows() if row["set"] == name}
        if digest in before:
            return
        if len(before) >= MOST:
            raise ConfigError(
                f"half: the reported half of {name} has been run {MOST} times, see {self.path}; "
                "make choices on --half tune"
            )
        self._append(name, digest, "begin", series, candidates, "")

    def finish(
        self, name: str, digest: str, series: int, candidates: str, figures: Mapping[str, float]
    ) -> None:
        """Enter the figures, before they are shown."""
        words = " ".join(f"{key}={value:.4f}" for key, value in figures.items())
        self._append(name, digest, "end", series, candidates, words)

    def _append(self, *entry: object) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(size - 1, 0))
                text = io.StringIO("" if file.read() in (b"", b"\n") else "\n")
                text.seek(0, os.SEEK_END)
                writer = csv.writer(text, lineterminator="\n")
                if not size:
                    writer.writerow(_FIELDS)
                writer.writerow([now, current_commit(), *entry])
                file.write(text.getvalue().encode())
        except OSError as error:
            raise ConfigError(f"ledger: {self.path} cannot be written: {error.strerror}") from error
