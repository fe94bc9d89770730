"""What is told of a stream's alerts: their messages, summaries of storms, and their evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edge_tsad.runtime import payload
from edge_tsad.runtime.alerting import AlertEvent
from edge_tsad.runtime.announcing import Announcer
from edge_tsad.runtime.evidence import EvidenceKeeper
from edge_tsad.runtime.limits import StormEvent
from edge_tsad.runtime.payload import StreamFacts

__all__ = ["Teller"]

LOST = "{}: this alert cannot be followed any further: its samples or its bundle began anew."


class Teller:
    """Makes the messages of one stream; ``announcer`` numbers and commits them.

    ``facts`` gives the stream's facts of now, for a threshold may change while an alert is open.
    """

    def __init__(
        self, announcer: Announcer, evidence: EvidenceKeeper, facts: Callable[[], StreamFacts]
    ) -> None:
        self._announcer, self._evidence, self._facts = announcer, evidence, facts

    def tell(self, events: Iterable[AlertEvent | StormEvent], *, silenced: bool) -> None:
        """Raise a message for each event, in their order."""
        for event in events:
            if isinstance(event, StormEvent):
                self._sum_up(event, silenced=silenced)
            else:
                self._raise(event, silenced=silenced)

    def end_lost(self, *, silenced: bool) -> None:
        """End the alert that is open, if there is one, for nothing will follow it."""
        if self._announcer.id:
            why = LOST.format(self._facts().stream)
            self._announcer.add(
                "end", lambda last, identity: payload.ended(last, identity, why), silenced=silenced
            )

    def _sum_up(self, event: StormEvent, *, silenced: bool) -> None:
        """The summary is an alert of its own, with its own id."""
        facts = self._facts()
        self._announcer.add_aside(
            event.kind,
            lambda last, identity: payload.storm(facts, event, last, identity),
            silenced=silenced,
        )

    def _raise(self, event: AlertEvent, *, silenced: bool) -> None:
        facts, told = self._facts(), self._announcer.id
        self._announcer.add(
            event.kind, lambda _, identity: payload.alert(facts, event, identity), silenced=silenced
        )
        self._evidence.keep(self._announcer.id or told, event)
