"""What was chosen stays chosen: a gateway that starts again serves the same model file as before.

State that a stream saved belongs to one model file, whose scores and threshold are its own. Were
the files timed anew at each start, noise could choose another one and cost the stream its warm-up.
"""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_tsad import __version__
from edge_tsad.bundle.archive import Bundle
from edge_tsad.decode import Json, canonical_json, decode, encode
from edge_tsad.errors import BundleError, ConfigError, DataError, EdgeTsadError
from edge_tsad.files import read_limited, write_atomically
from edge_tsad.runtime.apart import choose_apart, nothing
from edge_tsad.runtime.backends.select import available
from edge_tsad.runtime.choosing import Choice, choose, reopen

__all__ = ["Choices"]

log = logging.getLogger(__name__)

LARGEST_FILE = 1 << 20


@dataclass(frozen=True, slots=True)
class Remembered:
    """The model file and the runtime that were chosen."""

    path: str
    runtime: str


class Choices:
    """Chooses model files, and the same ones again while bundle, runtimes and machine are equal.

    Args:
        path: a JSON file with earlier choices; None chooses anew. A file that is missing or damaged
            holds none.
        meanwhile: called every second while files are timed, which may take longer than a watchdog
            waits.
    """

    def __init__(self, path: Path | None = None, meanwhile: Callable[[], None] = nothing) -> None:
        self._path, self._meanwhile = path, meanwhile
        self._earlier = {} if path is None else _load(path)
        self._made: dict[str, Remembered] = {}

    def of(self, bundle: Bundle, *, threads: int = 1, backend: str | None = None) -> Choice:
        """As :func:`edge_tsad.runtime.choosing.choose`; golden windows are run in any case.

        Raises:
            EdgeTsadError: as there.
        """
        key = _key(bundle, threads, backend)
        known = self._made.get(key) or self._earlier.get(key)
        choice = reopen(bundle, known.path, known.runtime, threads=threads) if known else None
        if choice is None:
            choice = _anew(bundle, threads, backend, self._meanwhile)
            for trial in choice.trials:
                if trial.path and trial.problem:
                    log.warning("%s: %s is not used: %s", bundle.where, trial.label, trial.problem)
        log.info("%s: %s is used: %s", bundle.where, choice.chosen.label, choice.why)
        self._made[key] = Remembered(choice.chosen.path, choice.chosen.runtime)
        return choice

    def save(self) -> None:
        """Keep this run's choices; where that is not possible, the next start chooses anew."""
        if self._path is None or self._made == self._earlier:
            return
        table: Json = {key: encode(choice) for key, choice in self._made.items()}
        try:
            write_atomically(self._path, canonical_json(table), DataError)
        except EdgeTsadError as e:
            log.warning("%s; the next start will time the model files again", e)


def _anew(
    bundle: Bundle, threads: int, backend: str | None, meanwhile: Callable[[], None]
) -> Choice:
    """Choose in a process of its own where there is anything to choose."""
    pairs = sum(
        name in file.runtimes
        for name in available()
        for file in bundle.manifest.files
        if backend in (None, name)
    )
    if pairs < 2:
        return choose(bundle, threads=threads, backend=backend)
    verdict = choose_apart(
        Path(bundle.where), threads=threads, backend=backend, meanwhile=meanwhile
    )
    chosen = verdict.require()
    again = reopen(bundle, chosen.path, chosen.runtime, threads=threads)
    if again is None:
        raise BundleError(
            f"{chosen.label} passed the bundle's golden windows once and then failed them; it does"
            " not compute the same each time and cannot be used"
        )
    return Choice(chosen, verdict.why, verdict.trials, again.backend)


def _key(bundle: Bundle, threads: int, backend: str | None) -> str:
    """Everything that a choice depends on."""
    runtimes = (f"{name} {version}" for name, version in available().items())
    parts = [bundle.digest, __version__, platform.machine(), f"threads {threads}", backend or "any"]
    return ", ".join([*parts, *runtimes])


def _load(path: Path) -> dict[str, Remembered]:
    try:
        table = json.loads(read_limited(path, LARGEST_FILE, DataError))
        return {
            key: decode(Remembered, entry, "choice", ConfigError) for key, entry in table.items()
        }
    except (EdgeTsadError, ValueError, AttributeError, RecursionError) as e:
        log.debug("%s holds no choices: %s", path, e)
        return {}
