"""The raw points around each alert, kept by its id: enough to compute its score once more."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from pathlib import Path

import numpy as np

from edge_tsad.errors import DataError, EdgeTsadError
from edge_tsad.files import make_folder
from edge_tsad.runtime.alerting import AlertEvent
from edge_tsad.runtime.backends.base import Backend
from edge_tsad.runtime.payload import StreamFacts
from edge_tsad.runtime.scorer import StreamScorer
from edge_tsad.runtime.state import Saved, load, save
from edge_tsad.runtime.stats import Writes
from edge_tsad.types import Cells, Scores, Timing

__all__ = ["EvidenceKeeper", "reach_back", "rescored"]

log = logging.getLogger(__name__)

MOST_ALERTS = 100
LONGEST = 4  # windows that are remembered for a peak that is told late


def reach_back(timing: Timing) -> int:
    """Points before a point that its score depends on."""
    return timing.window - 1 + timing.smoothing // 2


class EvidenceKeeper:
    """Remembers the newest cells of a stream and stores those that an alert's peak came from.

    Args:
        folder: one file an alert, the oldest give way to a hundred newer ones.
        facts: of the stream.
        model, runtime: the model file that computed the scores, and what ran it.
        update_every: points after which an alert's peak is told at the latest.

    Attributes:
        writes: what went to the storage.
    """

    def __init__(
        self, folder: Path, facts: StreamFacts, model: str, runtime: str, update_every: int
    ) -> None:
        self._folder, self._facts = folder, facts
        self._model, self._runtime = model, runtime
        timing = facts.timing
        needed = reach_back(timing) + timing.delay + 1
        self._length = needed + min(update_every, LONGEST * timing.window)
        self._cells: deque[Cells] = deque()
        self._rows = 0
        self._peaks: dict[str, int] = {}
        self._failing = False
        self.writes = Writes()

    def add(self, cells: Cells) -> None:
        """Remember cells; the whole newest chunk stays, for its alerts are told after it."""
        while self._cells and self._rows - len(self._cells[0]) >= self._length:
            self._rows -= len(self._cells.popleft())
        if len(cells):
            self._cells.append(cells)
            self._rows += len(cells)

    def keep(self, alert_id: str, event: AlertEvent) -> None:
        """Store the points of the alert's peak, unless they are stored or already forgotten."""
        timing = self._facts.timing
        first = event.peak_index - reach_back(timing)
        if self._peaks.get(alert_id) == event.peak_index or not self._cells:
            return
        path = self._folder / f"{alert_id}.npz"
        if path.exists() and int(self._cells[0].index[0]) > first:
            return  # what is stored of it is better than a part of its peak
        cells = Cells.join(list(self._cells))
        wanted = (cells.index >= first) & (cells.index <= event.peak_index + timing.delay)
        saved = Saved(
            self._about(alert_id, event),
            {
                "index": cells.index[wanted],
                "values": cells.values[wanted],
                "observed": cells.observed[wanted],
            },
        )
        try:
            make_folder(self._folder)
            written = save(path, saved)
            self._make_room()
        except (EdgeTsadError, OSError) as e:
            if not self._failing:
                log.error("%s: the points of an alert are not kept: %s", self._facts.stream, e)
            self._failing = True
            return
        self._failing = False
        self.writes += Writes(written, 2)
        self._peaks = {alert_id: event.peak_index}

    def _about(self, alert_id: str, event: AlertEvent) -> dict[str, object]:
        facts = self._facts
        return {
            "alert_id": alert_id,
            "stream": facts.stream,
            "bundle": facts.bundle,
            "digest": facts.digest,
            "model": self._model,
            "runtime": self._runtime,
            "peak_index": event.peak_index,
            "peak": event.peak,
            "onset": event.onset,
            "threshold": event.threshold,
        }

    def _make_room(self) -> None:
        files = sorted(self._folder.glob("*.npz"), key=lambda path: path.stat().st_mtime_ns)
        for path in files[:-MOST_ALERTS]:
            path.unlink(missing_ok=True)


def find(folder: Path, alert_id: str) -> Saved:
    """The stored points of an alert, in a gateway's data folder.

    Raises:
        DataError: there are none, or they are damaged.
    """
    paths = list((folder / "state").glob(f"*.alerts/{alert_id}.npz"))
    found = load(paths[0]) if paths else None
    if found is None:
        kept = sorted(path.stem for path in (folder / "state").glob("*.alerts/*.npz"))
        known = f"; it keeps {', '.join(kept[-5:])}" if kept else ""
        raise DataError(f"{folder}: keeps no points of the alert {alert_id}{known}")
    return found


def rescored(saved: Saved, timing: Timing, channels: int, backend: Backend) -> tuple[Scores, int]:
    """The scores of stored points, and the position of the alert's peak among them.

    Raises:
        DataError: the points are not enough for the score of the peak.
        BackendError: the model could not be run.
    """
    with contextlib.suppress(KeyError):
        arrays = saved.arrays
        cells = Cells(arrays["index"], arrays["values"], arrays["observed"])
        scores = StreamScorer(timing, channels, backend).extend(cells)
        at = np.flatnonzero(scores.index == int(saved.facts["peak_index"]))
        if len(at):
            return scores, int(at[0])
    raise DataError("the stored points are not enough to compute the score of the alert's peak")
