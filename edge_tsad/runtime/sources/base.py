"""What a source of samples is.

A source is one class in one file and one line in :data:`edge_tsad.registry.SOURCES`. It has a
frozen dataclass ``Options`` (its keys in the configuration, without ``type``), is built from them,
and then read by a thread of its own. Sources belong to the shell: they may read clocks and files.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from edge_tsad.types import Channel, FloatArray, IndexArray, Timing

__all__ = ["Batch", "Complaints", "Source", "SourceOptions", "batch_of"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples: ``times_ns`` i64[n] and ``values`` f32[n, C]; NaN where a channel has no value."""

    times_ns: IndexArray
    values: FloatArray

    def __len__(self) -> int:
        return len(self.times_ns)


class SourceOptions(Protocol):
    """The configuration of a source, a frozen dataclass."""

    def at(self, folder: Path) -> Self:
        """The same options with every relative path taken from ``folder``."""
        ...


class Source(Protocol):
    """A running source.

    ``live`` says that the times are this machine's wall clock, so that a cell of the grid may be
    closed because its time is over; a replay is closed by its own data alone.
    """

    Options: ClassVar[type[Any]]
    live: bool
    complaints: Complaints

    def __init__(self, options: Any, channels: tuple[Channel, ...], timing: Timing) -> None:
        """Checks what can be checked before anything runs.

        Raises:
            DataError: the source cannot deliver these channels.
            ConfigError: a package or a device that it needs is missing.
        """
        ...

    @classmethod
    def known_channels(cls, options: Any) -> tuple[Channel, ...]:
        """The channels that such a source has by itself; none where it must be told.

        Raises:
            DataError: it cannot be read.
            ConfigError: a package that it needs is missing.
        """
        ...

    def batches(self, stop: threading.Event) -> Iterator[Batch]:
        """Samples as they come, until the end of the source or soon after ``stop`` is set."""
        ...


class Complaints:
    """Counts what a source could not use; of each kind only the first is told.

    ``active`` are the kinds to be shown; what passes by itself, such as a lost connection, is ended
    by :meth:`over` and told anew when it comes again.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.counts: Counter[str] = Counter()
        self.active: frozenset[str] = frozenset()

    def note(self, kind: str, sentence: str) -> None:
        """One more thing of ``kind`` (an upper-case word); ``sentence`` describes this one."""
        self.counts[kind] += 1
        if kind not in self.active:
            self.active |= {kind}
            log.warning("%s: %s; further ones are only counted", self.source, sentence)

    def over(self, kind: str) -> None:
        """It is over: the next one is told again."""
        if kind in self.active:
            self.active -= {kind}
            log.warning("%s: no longer %s", self.source, kind)


def batch_of(times_ns: list[int], rows: list[list[float]]) -> Batch:
    """A batch from Python lists; infinite values and ones beyond float32 become missing."""
    wide: npt.NDArray[np.float64] = np.array(rows, np.float64).reshape(len(times_ns), -1)
    with np.errstate(over="ignore"):
        values = wide.astype(np.float32)
    values[~np.isfinite(values)] = np.nan
    return Batch(np.array(times_ns, np.int64), values)
