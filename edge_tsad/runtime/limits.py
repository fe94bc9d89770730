"""How many alerts of a stream are told, however often its score crosses the threshold.

Besides the policy's cool-down there are two limits: a few openings within minutes are flapping,
many within an hour a storm. What opens beyond either is withheld with all that follows of it, and
one summary is told instead, which counts what it stands for. Indices are those of the points, so
that any chunking and any restart gives the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edge_tsad.errors import ConfigError, DataError
from edge_tsad.runtime.alerting import AlertEvent

__all__ = ["AlertLimits", "LimitSettings", "StormEvent"]

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """At most ``per_hour`` openings in any hour and ``flaps`` in any ``flap_s`` are told.

    The summary of what is withheld is told at once, updated at most every ``flap_s``, and ended
    when nothing has opened for ``flap_s``. Without a rate a point counts as a second.
    """

    per_hour: int = 12
    flaps: int = 4
    flap_s: float = 600.0

    def __post_init__(self) -> None:
        for name in ("per_hour", "flaps", "flap_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"alerts.{name}: {getattr(self, name)} is not positive")


@dataclass(frozen=True, slots=True)
class StormEvent:
    """The summary: ``withheld`` alerts have opened since ``onset``, the highest with ``peak``.

    ``event`` is the newest one that was withheld; None at the end.
    """

    kind: Literal["new", "update", "end"]
    index: int
    onset: int
    withheld: int
    peak: float
    event: AlertEvent | None


class AlertLimits:
    """Lets alert events of one stream pass, or withholds them.

    Args:
        settings: the limits.
        step_s: seconds between points.

    Attributes:
        withheld: alerts that were withheld so far.
    """

    def __init__(self, settings: LimitSettings, step_s: float) -> None:
        self.settings = settings
        self._quiet = max(1, round(settings.flap_s / step_s))
        self._limits = (
            (settings.flaps, self._quiet),
            (settings.per_hour, max(1, round(HOUR_S / step_s))),
        )
        self.withheld = 0
        self._openings: list[int] = []
        self._begin_calm()

    def _begin_calm(self) -> None:
        self._onset = self._last = self._told = 0
        self._count = 0  # 0: there is no storm
        self._peak = 0.0
        self._hidden = False  # whether the open alert is withheld

    @property
    def storm(self) -> bool:
        """Whether alerts are withheld now."""
        return self._count > 0

    def take(self, events: Iterable[AlertEvent]) -> Iterator[AlertEvent | StormEvent]:
        """What of the events is to be told, in their order."""
        for event in events:
            yield from self.advance(event.index)
            if event.kind == "new" and not self._admits(event.index):
                yield from self._withhold(event)
            elif event.kind == "new" or not self._hidden:
                yield event
            else:
                self._peak = max(self._peak, event.peak)
                self._last = event.index
                self._hidden = event.kind != "end"

    def advance(self, index: int) -> Iterator[StormEvent]:
        """The end of the summary: the points up to ``index`` were calm, or time went backwards."""
        calm = self._last + self._quiet
        over = index < self._onset or (not self._hidden and index >= calm)
        if self.storm and over:
            end = min(index, calm)
            yield StormEvent("end", end, self._onset, self._count, self._peak, None)
            self._begin_calm()

    def _admits(self, index: int) -> bool:
        """Whether an opening at ``index`` is told; it is counted then."""
        longest = max(span for _, span in self._limits)
        self._openings = [each for each in self._openings if index - longest < each <= index]
        full = any(
            sum(index - span < each for each in self._openings) >= most
            for most, span in self._limits
        )
        if full or self.storm:
            return False
        self._openings.append(index)
        return True

    def _withhold(self, event: AlertEvent) -> Iterator[StormEvent]:
        if not self.storm:
            self._onset, self._told = event.onset, event.index - self._quiet
            self._peak = event.peak
        kind: Literal["new", "update"] = "update" if self.storm else "new"
        self.withheld += 1
        self._count += 1
        self._hidden, self._last = True, event.index
        self._peak = max(self._peak, event.peak)
        if event.index - self._told >= self._quiet:
            self._told = event.index
            yield StormEvent(kind, event.index, self._onset, self._count, self._peak, event)

    def snapshot(self) -> dict[str, Any]:
        """All that is needed to go on after a restart, as JSON."""
        return {
            "openings": self._openings,
            "withheld": self.withheld,
            "storm": [self._onset, self._last, self._told, self._count],
            "peak": self._peak,
            "hidden": self._hidden,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`snapshot`.

        Raises:
            DataError: if it is not one; nothing is changed.
        """
        try:
            openings = [int(each) for each in state["openings"]]
            withheld, peak = int(state["withheld"]), float(state["peak"])
            onset, last, told, count = (int(each) for each in state["storm"])
            hidden = bool(state["hidden"])
        except (KeyError, TypeError, ValueError) as e:
            raise DataError(f"alert limits: are not a snapshot ({e}); start without it") from e
        self._openings, self.withheld, self._peak, self._hidden = openings, withheld, peak, hidden
        self._onset, self._last, self._told, self._count = onset, last, told, count
