"""Values that cross the walls between rooms, and the table of symbols that every docstring uses.

Symbols
-------
========  =============================================================================
``B``     windows in a batch
``T``     points in a window (``Timing.window``)
``C``     channels
``n``     points in a chunk of a stream
``k``     grid index of a point, ``k = floor(t / Δ)`` with ``t`` since the Unix epoch
``Δ``     grid step (``Timing.step_ns``), nanoseconds
``H``     hop (``Timing.hop``): windows end at every ``e`` with ``(e + 1) mod H = 0``
``D``     delay (``Timing.delay``): the score of ``k`` is emitted when ``k + D`` has arrived
``S``     smoothing (``Timing.smoothing``), odd; 1 = none
========  =============================================================================

Arrays
------
================  ================  ================================================
name              dtype, shape      meaning
================  ================  ================================================
``window``        f32[B, T, C]      engineering units; a missing point carries the last
                                    value (0 before the first one)
``observed``      f32[B, T, C]      1 where a point was measured, 0 where it is missing
``score``         f32[B, T]         ≥ 0, higher = more anomalous
``channel_score`` f32[B, T, C]      ≥ 0, the part of each channel; comparable within a point only
``expected``      f32[B, T, C]      engineering units: what a normal window would have shown
details           f32[B, T] each    whatever else a detector tells of a point, under names of its
                                    own; ≥ 0, negative where it cannot be told
``index``         i64[n]            grid indices ``k``, strictly increasing
``times_ns``      i64[n]            nanoseconds since the Unix epoch
================  ================  ================================================

In a stream (``Cells``, ``Scores``) the batch axis is gone and the rows are points.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edge_tsad.errors import ConfigError

__all__ = [
    "Aggregate",
    "Cells",
    "Channel",
    "FloatArray",
    "IndexArray",
    "Now",
    "PolicySettings",
    "Reading",
    "Scores",
    "Timing",
]

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]
Aggregate = Literal["mean", "last", "max"]

NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Now:
    """The time as the shell of the runtime read it; the core never reads a clock itself.

    ``monotonic_s`` orders events within one ``boot_id``; ``wall_ns`` (Unix epoch) is to be believed
    only while ``synchronised``.
    """

    monotonic_s: float
    wall_ns: int
    boot_id: str = ""
    synchronised: bool = True


@dataclass(frozen=True, slots=True)
class Channel:
    """One measured quantity.

    ``aggregate`` joins the readings that fall into one grid cell; ``hold`` is for how many cells a
    reading stands for the cells after it in which nothing arrived (0 = only for its own).
    """

    name: str
    unit: str = ""
    aggregate: Aggregate = "mean"
    hold: int = 0

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("channel.name: is empty; give each channel a name")
        if self.aggregate not in ("mean", "last", "max"):
            raise ConfigError(
                f"channel.aggregate: {self.aggregate!r} is none of mean, last, max ({self.name})"
            )
        if self.hold < 0:
            raise ConfigError(f"channel.hold: {self.hold} is negative ({self.name})")


@dataclass(frozen=True, slots=True)
class Timing:
    """The grid and the windows on it: Δ, T, H, D and S. Changing one invalidates the threshold.

    ``period`` (points) is the span whose newest instance must be at least half observed for a score
    to be given. ``has_rate`` is False for data that came without time stamps: Δ is then a nominal
    second and budgets count points.
    """

    step_ns: int
    window: int
    hop: int
    delay: int
    smoothing: int
    period: int
    has_rate: bool = True

    def __post_init__(self) -> None:
        for field in ("step_ns", "window", "hop", "smoothing", "period"):
            if getattr(self, field) < 1:
                raise ConfigError(f"timing.{field}: {getattr(self, field)} is less than 1")
        if self.smoothing % 2 == 0:
            raise ConfigError(f"timing.smoothing: {self.smoothing} is even; it must be odd")
        least = self.hop - 1 + self.smoothing // 2
        if self.delay < least:
            raise ConfigError(
                f"timing.delay: {self.delay} is less than hop - 1 + smoothing // 2 = {least}"
            )
        if self.window <= self.reach:
            raise ConfigError(
                f"timing.window: {self.window} is not more than delay - smoothing // 2 = "
                f"{self.reach}"
            )

    @property
    def reach(self) -> int:
        """Points a window end may lie after the point it helps to score: D − ⌊S/2⌋."""
        return self.delay - self.smoothing // 2

    @property
    def delay_s(self) -> float:
        """The declared delay D in seconds."""
        return self.delay * self.step_ns / NANOSECONDS

    def index(self, times_ns: IndexArray) -> IndexArray:
        """Grid index k = ⌊t/Δ⌋ of times in nanoseconds since the Unix epoch."""
        return times_ns // self.step_ns

    def offline(self) -> Timing:
        """The same grid with the longest delay there is, T − 1 + ⌊S/2⌋: what "offline" means."""
        return dataclasses.replace(self, delay=self.window - 1 + self.smoothing // 2)


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """How scores become alerts; all spans in points of the grid, the tail is counted with them.

    ``minimum_duration``: points at or above the threshold in a row before an alert opens.
    ``hysteresis``: the score must fall below ``median + hysteresis · (threshold − median)``.
    ``resolve_after``: valid points below that in a row before the alert closes.
    ``cooldown``: points after a close in which none opens.
    ``update_every``: points between updates of an open alert.
    """

    minimum_duration: int = 1
    hysteresis: float = 0.8
    resolve_after: int = 1
    cooldown: int = 0
    update_every: int = 1

    def __post_init__(self) -> None:
        for field in ("minimum_duration", "resolve_after", "update_every"):
            if getattr(self, field) < 1:
                raise ConfigError(f"policy.{field}: {getattr(self, field)} is less than 1")
        if self.cooldown < 0:
            raise ConfigError(f"policy.cooldown: {self.cooldown} is negative")
        if not 0 < self.hysteresis <= 1:
            raise ConfigError(f"policy.hysteresis: {self.hysteresis} is not in (0, 1]")


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of one channel as a source delivered it; ``channel`` is its position, 0…C−1."""

    channel: int
    time_ns: int
    value: float


@dataclass(frozen=True, slots=True)
class Cells:
    """Consecutive closed grid cells: ``index`` i64[n], ``values`` and ``observed`` f32[n, C].

    Indices may jump: a cell in which no channel has a value is left out.
    """

    index: IndexArray
    values: FloatArray
    observed: FloatArray

    def __len__(self) -> int:
        return len(self.index)

    @classmethod
    def empty(cls, channels: int) -> Cells:
        """No cells."""
        nothing = np.empty((0, channels), np.float32)
        return cls(np.empty(0, np.int64), nothing, nothing)

    @classmethod
    def join(cls, parts: list[Cells]) -> Cells:
        """The cells of ``parts`` (at least one) in their order."""
        return cls(
            np.concatenate([part.index for part in parts]),
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.observed for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class Scores:
    """Scored points, each with its own index: the point was measured there, D points ago.

    ``score`` f32[n] is NaN where it is withheld (too little was observed). ``channel_score``,
    ``expected``, ``values`` and ``observed`` are f32[n, C]; ``expected`` is None for a detector
    that has none. ``details`` f32[n, d] has a column for each detail, in the order of their names,
    each as the newest window says that held the point; None without any.
    """

    index: IndexArray
    score: FloatArray
    channel_score: FloatArray
    expected: FloatArray | None
    values: FloatArray
    observed: FloatArray
    details: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.index)

    @classmethod
    def join(cls, parts: list[Scores]) -> Scores:
        """The points of ``parts`` (at least one) in their order."""
        expected = [part.expected for part in parts if part.expected is not None]
        told = [part for part in parts if len(part)]
        details = [part.details for part in told if part.details is not None]
        return cls(
            np.concatenate([part.index for part in parts]),
            np.concatenate([part.score for part in parts]),
            np.concatenate([part.channel_score for part in parts]),
            np.concatenate(expected) if len(expected) == len(parts) else None,
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.observed for part in parts]),
            np.concatenate(details) if details and len(details) == len(told) else None,
        )
