"""What the sources of a gateway deliver, taken in and scored a few samples at a time."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge_tsad.errors import EdgeTsadError
from edge_tsad.runtime.feed import Arrival, Arrivals, Feed
from edge_tsad.runtime.gathering import Gathering
from edge_tsad.runtime.sources.base import Batch
from edge_tsad.runtime.worker import StreamWorker
from edge_tsad.types import Now

__all__ = ["Inlet", "Intake"]

log = logging.getLogger(__name__)

JOIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Inlet:
    """One stream: its worker, the thread of its source, and what was not scored yet."""

    worker: StreamWorker
    feed: Feed
    gathered: Gathering


class Intake:
    """The inlets of all streams; everything but :meth:`end` is called by the gateway's thread.

    ``seen`` is shown the name of a stream and the samples that it was given. The failure of one
    stream ends that stream and no other.

    Attributes:
        arrivals: what the sources have read.
        errors: which streams have failed, in words.
    """

    def __init__(self, seen: Callable[[str, Batch], None]) -> None:
        self.arrivals = Arrivals()
        self.errors: list[str] = []
        self._seen = seen
        self._numbers = itertools.count()
        self._inlets: dict[int, Inlet] = {}

    def add(self, worker: StreamWorker) -> Feed:
        """One more stream, whose feed is not started yet."""
        number = next(self._numbers)
        stream = worker.stream
        feed = Feed(number, stream.facts.stream, stream.source, self.arrivals)
        self._inlets[number] = Inlet(worker, feed, Gathering(stream.facts.timing))
        return feed

    def start(self) -> None:
        """Begin to read all sources."""
        for inlet in self._inlets.values():
            inlet.feed.start()

    def end(self) -> None:
        """Make every source end soon; may be called from a signal handler."""
        self.arrivals.end()

    def stop_one(self, worker: StreamWorker) -> None:
        """Make the source of one stream end soon; its last arrival finishes the worker."""
        self._inlets[self._number(worker)].feed.stop()

    def remove(self, worker: StreamWorker, now: Now) -> None:
        """Score what a stream had delivered, and forget its inlet."""
        number = self._number(worker)
        self._flush(self._inlets[number], now)
        del self._inlets[number]

    @property
    def is_well(self) -> bool:
        """Whether no source's thread has died without a word."""
        return all(inlet.feed.well for inlet in self._inlets.values())

    def take(self, arrivals: list[Arrival], now: Now) -> None:
        """Keep what has arrived until it is due; what is much already is scored at once."""
        for arrival in arrivals:
            inlet = self._inlets.get(arrival.stream)
            if inlet is None or inlet.worker.finished:
                continue
            if arrival.batch is None:
                self._finish(inlet, arrival.error, now)
            elif inlet.gathered.add(arrival.batch):
                self._flush(inlet, now)

    def advance(self, now: Now) -> None:
        """Score what is due, and let time pass for its streams."""
        for inlet in self._inlets.values():
            if inlet.gathered.due(now.monotonic_s):
                self._flush(inlet, now)
                self._attempt(inlet.worker, inlet.worker.advance, now)

    def take_the_rest(self, now: Now) -> None:
        """After :meth:`end`: what the sources had already delivered is still scored."""
        for inlet in self._inlets.values():
            inlet.feed.join(JOIN_S)
        self.take([each for each in self.arrivals.take(0) if each.batch is not None], now)
        for inlet in self._inlets.values():
            self._flush(inlet, now)

    def _number(self, worker: StreamWorker) -> int:
        return next(n for n, inlet in self._inlets.items() if inlet.worker is worker)

    def _flush(self, inlet: Inlet, now: Now) -> None:
        """Score what was gathered of a stream."""
        batch, worker = inlet.gathered.take(), inlet.worker
        if batch is not None and not worker.finished:
            self._attempt(worker, worker.take, batch, now)
            self._seen(worker.facts.stream, batch)

    def _finish(self, inlet: Inlet, error: str, now: Now) -> None:
        self._flush(inlet, now)
        if error:
            self._fail(inlet.worker, error)
        self._attempt(inlet.worker, inlet.worker.finish, now)

    def _attempt(self, worker: StreamWorker, step: Callable[..., None], *arguments: Any) -> None:
        try:
            step(*arguments)
        except EdgeTsadError as e:
            self._fail(worker, str(e))
            worker.finished = True

    def _fail(self, worker: StreamWorker, error: str) -> None:
        worker.health.add("FAILED")
        self.errors.append(f"{worker.facts.stream}: {error}")
        log.error("%s has failed: %s", worker.facts.stream, error)
