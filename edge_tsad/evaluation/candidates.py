"""What can be measured: a candidate learns from a history and then scores a stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from edge_tsad.training.series import Series
from edge_tsad.types import FloatArray, IndexArray, PolicySettings

__all__ = ["Alarm", "Candidate", "Fitted", "Stream"]


class Stream(Protocol):
    """One pass over a test."""

    def extend(self, index: IndexArray, values: FloatArray) -> tuple[IndexArray, FloatArray]:
        """Show points ``index`` i64[n], ``values`` f32[n, C] (NaN = missing).

        Returns the grid indices i64[m], strictly increasing over all calls, whose scores became
        final, and their scores f32[m] (NaN = withheld).
        """


@dataclass(frozen=True, slots=True)
class Alarm:
    """The threshold a candidate ships with, and the openings per point that it promises.

    ``interval`` is that of ``rate``, None where ``state`` promises nothing; ``rate`` is then only
    the most that is not ruled out. ``counts`` gives the openings that some points of fresh data
    shall have; see `Threshold.counts`.
    """

    threshold: float
    median: float
    policy: PolicySettings
    state: str
    rate: float
    interval: tuple[float, float] | None
    counts: Callable[[float], tuple[int, int] | None]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A candidate fitted to one history.

    ``stream()`` begins a fresh pass. ``window`` T and ``delay`` D are in points, ``parameters``
    counts the trained numbers, and ``facts`` go into the results as they are.
    """

    stream: Callable[[], Stream]
    window: int
    delay: int
    parameters: int = 0
    alarm: Alarm | None = None
    facts: Mapping[str, float | str] = field(default_factory=dict)


class Candidate(ABC):
    """Something to be measured; picklable, for it travels to worker processes.

    ``sees_future``: a point's score depends on points beyond a bounded delay. ``whole``: it is a
    batch method and wants the test in one piece. ``random``: seeds make a difference.
    """

    name: str
    sees_future: bool = False
    whole: bool = False
    random: bool = True

    @abstractmethod
    def settings(self) -> dict[str, object]:
        """Everything that its results depend on besides the data and the seed, as JSON values."""

    def check(self) -> None:  # noqa: B027 - most have nothing that could be wrong
        """Refuse what would fail on every series, before any of them is spent.

        Raises:
            ConfigError: an option is unknown, of another type or out of range.
        """

    def prepare(self) -> None:  # noqa: B027 - most have nothing to prepare
        """Load or compile what is no part of the method's own time."""

    @abstractmethod
    def fit(self, history: Series, seed: int) -> Fitted:
        """Learn from ``history``, which has no labels and no names."""
