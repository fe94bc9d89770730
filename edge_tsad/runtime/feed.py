"""Sources read by threads of their own, joined in one bounded queue."""

from __future__ import annotations

import logging
import queue
import threading
from dataclasses import dataclass

from edge_tsad.errors import EdgeTsadError
from edge_tsad.runtime.sources.base import Batch, Source

__all__ = ["Arrival", "Arrivals", "Feed"]

log = logging.getLogger(__name__)

DEPTH = 16


@dataclass(frozen=True, slots=True)
class Arrival:
    """A batch of stream number ``stream``; None says that its source has ended, ``error`` why."""

    stream: int
    batch: Batch | None
    error: str = ""


class Arrivals:
    """The queue between the threads of all sources and the one that scores.

    It is bounded: a replay as fast as possible waits for the scoring instead of filling memory.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._queue: queue.Queue[Arrival] = queue.Queue(DEPTH)
        self._sources: list[threading.Event] = []

    def source(self) -> threading.Event:
        """An event for one more source to stop at; :meth:`end` sets it as well."""
        stop = threading.Event()
        self._sources.append(stop)
        return stop

    def end(self) -> None:
        """Make every source end soon; may be called from a signal handler."""
        self.stop.set()
        for stop in self._sources:
            stop.set()

    def put(self, arrival: Arrival) -> None:
        """Wait for a place; given up when there is none and ``stop`` is set."""
        while True:
            try:
                self._queue.put(arrival, timeout=0.2)
            except queue.Full:
                if not self.stop.is_set():
                    continue
            return

    def get(self, timeout_s: float) -> Arrival | None:
        """The next arrival; None if there is none within ``timeout_s``."""
        try:
            return self._queue.get(timeout=timeout_s) if timeout_s else self._queue.get_nowait()
        except queue.Empty:
            return None


class Feed:
    """The thread of one source, number ``number``."""

    def __init__(self, number: int, name: str, source: Source, arrivals: Arrivals) -> None:
        self.number, self._name = number, name
        self._stop = arrivals.source()
        self._over = False
        self._source, self._arrivals = source, arrivals
        self._thread = threading.Thread(target=self._run, name=f"source {name}", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    @property
    def well(self) -> bool:
        """Whether its thread reads, or has come to its end in order."""
        return self._over or self._thread.is_alive()

    def stop(self) -> None:
        """Make the source end soon; its last arrival says so."""
        self._stop.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the thread, which :meth:`stop` brings about."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        error = ""
        try:
            for batch in self._source.batches(self._stop):
                self._arrivals.put(Arrival(self.number, batch))
        except (EdgeTsadError, OSError) as e:
            error = str(e)
        except Exception as e:
            # The other streams go on; whoever looks at this one finds the traceback in the log.
            log.exception("a defect of this program: the source of %s failed", self._name)
            error = f"{type(e).__name__}: {e}"
        self._arrivals.put(Arrival(self.number, None, error))
        self._over = True
