"""Recording without a bundle: sources → grid → history, until told to stop."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_tsad.errors import DataError, EdgeTsadError
from edge_tsad.files import write_atomically
from edge_tsad.runtime.clock import Clock, SystemClock
from edge_tsad.runtime.feed import Arrival, Arrivals, Feed
from edge_tsad.runtime.history import History
from edge_tsad.runtime.resampler import Resampler
from edge_tsad.runtime.segments import Recording
from edge_tsad.runtime.sources.base import Source
from edge_tsad.types import Cells, Now, Timing

__all__ = ["Recorder", "Track", "export", "timing_of"]

log = logging.getLogger(__name__)

TICK_S = 0.1


@dataclass
class Track:
    """One stream that is recorded: its source, where its rows go, and what came."""

    name: str
    source: Source
    history: History
    lateness_ns: int = 0

    def __post_init__(self) -> None:
        layout = self.history.layout
        self.resampler = Resampler(layout.step_ns, layout.channels, self.lateness_ns)
        self.samples = 0
        self.ended = False
        self.error = ""


class Recorder:
    """Records all ``tracks`` at once; each source has a thread of its own."""

    def __init__(self, tracks: list[Track], clock: Clock | None = None) -> None:
        self.tracks = tracks
        self.clock = clock or SystemClock()
        self.arrivals = Arrivals()

    def stop(self) -> None:
        """Make :meth:`run` return soon; may be called from a signal handler."""
        self.arrivals.end()

    def run(self, limit_s: float | None = None, tell: Callable[[], None] | None = None) -> None:
        """Record until :meth:`stop`, the end of all sources, or for ``limit_s``.

        ``tell`` is called ten times a second. What was recorded is stored when this returns;
        ``error`` of a track says what could not be.
        """
        feeds = [
            Feed(number, track.name, track.source, self.arrivals)
            for number, track in enumerate(self.tracks)
        ]
        end_s = None if limit_s is None else self.clock.now().monotonic_s + limit_s
        try:
            for feed in feeds:
                feed.start()
            while not (self.arrivals.stop.is_set() or all(t.ended for t in self.tracks)):
                now = self.clock.now()
                if end_s is not None and now.monotonic_s >= end_s:
                    break
                self._turn(now)
                if tell is not None:
                    tell()
        finally:
            self.arrivals.end()
            for feed in feeds:
                feed.join(1.0)
            self._close()

    def _turn(self, now: Now) -> None:
        for arrival in self.arrivals.take(TICK_S):
            self._take(arrival, now)
        for track in self.tracks:
            if track.source.live and not track.ended and track.samples:
                self._keep(track, track.resampler.advance(now), now)
            self._attempt(track, track.history.tick, now)

    def _take(self, arrival: Arrival, now: Now) -> None:
        track, batch = self.tracks[arrival.stream], arrival.batch
        if batch is None:
            self._end(track, arrival.error, now)
        else:
            track.samples += len(batch)
            self._keep(track, track.resampler.extend(batch.times_ns, batch.values), now)

    def _end(self, track: Track, error: str, now: Now) -> None:
        track.ended = True
        track.error = error or track.error
        self._keep(track, track.resampler.finish(), now)

    def _keep(self, track: Track, cells: Cells, now: Now) -> None:
        self._attempt(track, track.history.add, cells, now)

    def _attempt(self, track: Track, step: Callable[..., None], *arguments: object) -> None:
        """The rows stay in memory when the storage fails, and are tried again."""
        try:
            step(*arguments)
        except EdgeTsadError as e:
            if track.error != str(e):
                log.error("%s: %s", track.name, e)
            track.error = str(e)

    def _close(self) -> None:
        now = self.clock.now()
        for arrival in self.arrivals.take(0):
            if arrival.batch is not None:
                self._take(arrival, now)
        for track in self.tracks:
            if not track.ended:
                self._keep(track, track.resampler.finish(), now)
            self._attempt(track, track.history.close, now)


def timing_of(step_ns: int, has_rate: bool = True) -> Timing:
    """The grid alone, for a source that is not scored."""
    return Timing(step_ns, window=2, hop=1, delay=0, smoothing=1, period=1, has_rate=has_rate)


def export(recording: Recording, path: Path) -> None:
    """Write a recording as one NPZ or, by its name, CSV file that ``edge-tsad train`` reads.

    Raises:
        DataError: the name ends in neither, or it cannot be written.
    """
    kinds = {".npz": npz_of, ".csv": csv_of}
    if path.suffix.lower() not in kinds:
        raise DataError(f"{path}: is neither a .csv nor an .npz file")
    write_atomically(path, kinds[path.suffix.lower()](recording), DataError)


def npz_of(recording: Recording) -> bytes:
    """Arrays ``values``, ``channels`` and, with a rate, ``times_ns``."""
    buffer = io.BytesIO()
    names = np.array([channel.name for channel in recording.layout.channels])
    arrays: dict[str, Any] = {"values": recording.values, "channels": names}
    arrays |= {"times_ns": recording.times_ns} if recording.layout.has_rate else {}
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def csv_of(recording: Recording) -> bytes:
    """A line of names, then a row a cell; the time is ISO 8601 in UTC."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [channel.name for channel in recording.layout.channels]
    rated = recording.layout.has_rate
    writer.writerow(["time", *names] if rated else names)
    stamps = np.datetime_as_string(recording.times_ns.astype("datetime64[ns]"), timezone="UTC")
    for stamp, row in zip(stamps, recording.values, strict=True):
        cells = ["" if np.isnan(value) else str(value) for value in row]
        writer.writerow([stamp, *cells] if rated else cells)
    return out.getvalue().encode()
