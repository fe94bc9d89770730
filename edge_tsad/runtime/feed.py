"""Sources read by threads of their own, joined in one bounded queue."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from edge_tsad.errors import EdgeTsadError
from edge_tsad.runtime.sources.base import Batch, Source

__all__ = ["Arrival", "Arrivals", "Feed"]

log = logging.getLogger(__name__)

PRESSING = 512
MOST_WAITING = 2048


@dataclass(frozen=True, slots=True)
class Arrival:
    """A batch of stream number ``stream``; None says that its source has ended, ``error`` why."""

    stream: int
    batch: Batch | None
    error: str = ""

    def __len__(self) -> int:
        return 0 if self.batch is None else len(self.batch)


class Arrivals:
    """What the threads of all sources have read, for the one thread that scores.

    A sample does not wake that thread, for it takes them a few at a time: only 512 rows do, and the
    end of a source. What waits is bounded: a replay as fast as possible waits for the scoring
    instead of filling memory.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._changed = threading.Condition()
        self._waiting: list[Arrival] = []
        self._rows = 0
        self._pressing = False
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
        """Wait for room; given up when there is none and ``stop`` is set."""
        with self._changed:
            while self._rows >= MOST_WAITING:
                if self.stop.is_set():
                    return
                self._changed.wait(0.2)
            self._waiting.append(arrival)
            self._rows += len(arrival)
            if self._rows >= PRESSING or arrival.batch is None:
                self._pressing = True
                self._changed.notify_all()

    def take(self, timeout_s: float) -> list[Arrival]:
        """All that has arrived, after at most ``timeout_s``; sooner if it presses."""
        with self._changed:
            if timeout_s and not self._pressing:
                self._changed.wait(timeout_s)
            taken, self._waiting, self._rows, self._pressing = self._waiting, [], 0, False
            self._changed.notify_all()
        return taken


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
