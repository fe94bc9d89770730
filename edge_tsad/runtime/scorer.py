"""The one way to compute a score: in calibration, in benchmarks and on a gateway."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_tsad.errors import BackendError, DataError
from edge_tsad.runtime.backends.base import Backend
from edge_tsad.runtime.backends.checks import detail_names
from edge_tsad.runtime.ring_buffer import RingBuffer
from edge_tsad.runtime.rows import RowQueue, centred_sum, forward_fill
from edge_tsad.types import Cells, FloatArray, IndexArray, Scores, Timing

__all__ = ["StreamScorer"]

UNKNOWN = -1.0
"""A detail of which nothing was told."""

LEAST_PIECE, MOST_PIECE = 1024, 16384
"""Points that are taken through all steps at once: fast enough, and bounded for any chunk."""


class StreamScorer:
    """Scores the points of a stream from overlapping windows, D points after they were measured.

    A *segment* is a run of points without a gap of T or more; a shorter gap is filled with
    unobserved points that carry the last value. In a segment that begins at index ``a``:

    - windows of T points end at each e ≥ a + T − 1 with (e + 1) mod H = 0;
    - m(k), k ≥ a + T − 1, is the mean of ``score(window ending at e)[k]`` over the ends
      k ≤ e ≤ k + D − ⌊S/2⌋; ``channel_score`` and ``expected`` alike;
    - s(k) is the mean of those of the S values m centred on k that exist; ``channel_score``
      alike, ``expected`` is not smoothed;
    - details are neither averaged nor smoothed: those of k are the newest such window's;
    - s(k) is emitted when point k + D has arrived, and is NaN (withheld) where fewer than half of
      the cells of the ``period`` points ending at k + D, all channels pooled, were observed. Points
      before the segment count as not observed.

    The emitted scores do not depend on how the stream is cut into chunks, and nothing in them
    depends on a point later than k + D or on how long the stream has been running.

    Args:
        timing: Δ, T, H, D, S and the period.
        channels: C.
        backend: computes a window's outputs.
    """

    def __init__(self, timing: Timing, channels: int, backend: Backend) -> None:
        self._timing, self._channels, self._backend = timing, channels, backend
        self._piece = min(max(LEAST_PIECE, timing.hop * backend.max_batch), MOST_PIECE)
        self._kept = max(timing.window, timing.delay + 1)
        self._ring = RingBuffer(self._kept + self._piece, channels)
        columns = 1 + 2 * channels  # score, channel_score, expected
        self._sums = RowQueue(columns, np.float64)  # over the windows seen, until no more can come
        self._means = RowQueue(columns, np.float64)  # m(k)
        self._seen = RowQueue(1, np.int64)  # observed cells of the segment up to a point
        self._has_expected: bool | None = None  # None until the backend has answered once
        self._details: RowQueue[np.float32] | None = None  # of each point, none until one answers
        self._begin_segment(0)

    @property
    def warmup_remaining(self) -> int:
        """Points that must still arrive until the first score of this segment."""
        arrived = self._next - self._begin
        return max(0, self._timing.window + self._timing.delay - arrived)

    def extend(self, cells: Cells) -> Scores:
        """Take closed cells; returns the points whose scores became final.

        Raises:
            DataError: the cells have other channels, or an index does not increase.
            BackendError: the backend failed, or its outputs do not have the declared shapes.
        """
        steps = self._steps(cells)
        restarts = np.flatnonzero(steps > self._timing.window).tolist()
        if not self._started and len(cells):
            restarts.insert(0, 0)
        bounds = [0, *restarts, len(cells)]
        parts: list[Scores] = []
        for low, high in itertools.pairwise(bounds):
            if low in restarts:
                self._begin_segment(int(cells.index[low]))
            parts += self._extend_segment(cells, low, high)
        if len(parts) == 1:
            return parts[0]
        return Scores.join(parts) if parts else self._no_scores()

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """The whole state as arrays that `restore` takes."""
        expected = -1 if self._has_expected is None else int(self._has_expected)
        position = [self._begin, self._next, self._due, expected]
        firsts = [self._sums.first, self._means.first, self._seen.first]
        return {
            "timing": self._shape(),
            "position": np.array(position + firsts, np.int64),
            "last": self._last.copy(),
            "sums": self._sums.snapshot(),
            "means": self._means.snapshot(),
            "seen": self._seen.snapshot(),
            **({} if self._details is None else {"details": self._details.snapshot()}),
            **self._ring.snapshot(self._kept),
        }

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue where the snapshot was taken.

        Raises:
            DataError: the snapshot is of another timing or number of channels.
        """
        if not np.array_equal(state["timing"], self._shape()):
            raise DataError(
                "the saved state of the scorer is of another timing or number of channels;"
                " remove it to start afresh"
            )
        position = (int(value) for value in state["position"])
        self._begin, self._next, self._due, expected, *firsts = position
        self._has_expected = None if expected < 0 else bool(expected)
        self._last = state["last"].copy()
        self._sums.restore(firsts[0], state["sums"])
        self._means.restore(firsts[1], state["means"])
        self._seen.restore(firsts[2], state["seen"])
        self._details = None
        if "details" in state:
            self._details = RowQueue(state["details"].shape[1], np.float32)
            self._details.restore(self._due, state["details"])
        self._ring.restore({name: state[name] for name in ("values", "observed")})

    @property
    def _started(self) -> bool:
        return self._next > self._begin

    def _shape(self) -> npt.NDArray[np.int64]:
        t = self._timing
        shape = [t.step_ns, t.window, t.hop, t.delay, t.smoothing, t.period, self._channels]
        return np.array(shape, np.int64)

    def _steps(self, cells: Cells) -> IndexArray:
        """How far each cell lies after the one before it, at least 1; checks the shapes too."""
        if cells.values.shape != (len(cells), self._channels) or (
            cells.observed.shape != cells.values.shape
        ):
            raise DataError(
                f"cells: values {cells.values.shape} and observed {cells.observed.shape} are not"
                f" {len(cells)} points of {self._channels} channel(s)"
            )
        if not len(cells):
            return cells.index
        before = self._next if self._started else cells.index[0]
        steps = np.diff(cells.index, prepend=before - 1)
        if steps.min() < 1:
            raise DataError(
                f"cells: index {cells.index[steps.argmin()]} does not come after the one before it;"
                " points must be in the order of time"
            )
        return steps

    def _begin_segment(self, index: int) -> None:
        first = index + self._timing.window - 1
        self._begin = self._next = index
        self._due = first  # the next point to emit
        self._last = np.zeros(self._channels, np.float32)
        self._ring.clear()
        self._sums.clear(first)
        self._means.clear(first)
        self._seen.clear(index)
        if self._details is not None:
            self._details.clear(first)

    def _extend_segment(self, cells: Cells, low: int, high: int) -> Iterator[Scores]:
        """Cells ``low`` … ``high - 1``, all of the present segment, piece by piece."""
        while low < high:
            end = min(self._next + self._piece, int(cells.index[high - 1]) + 1)
            stop = low + int(np.searchsorted(cells.index[low:high], end))
            scores = self._take(*self._filled(cells, low, stop, end - self._next))
            low = stop
            if len(scores):
                yield scores

    def _filled(
        self, cells: Cells, low: int, high: int, points: int
    ) -> tuple[FloatArray, FloatArray]:
        """Values and observed f32[points, C] of the next points, the missing ones filled."""
        values, observed = cells.values[low:high], cells.observed[low:high]
        present = (observed > 0) & np.isfinite(values)
        if points != high - low:
            at = cells.index[low:high] - self._next
            wide = np.zeros((points, self._channels), np.float32)
            mask = np.zeros(wide.shape, np.bool_)
            wide[at], mask[at] = values, present
            values, present = wide, mask
        values = forward_fill(values, present, self._last)
        self._last = values[-1].copy()
        return values, present.astype(np.float32)

    def _take(self, values: FloatArray, observed: FloatArray) -> Scores:
        """The next points of the segment, at most a piece, none missing."""
        start, self._next = self._next, self._next + len(values)
        self._ring.extend(values, observed)
        self._count(start, observed)
        fresh = max(0, self._next - max(start, self._begin + self._timing.window - 1))
        self._sums.grow(fresh)
        if self._details is not None:
            self._details.grow(fresh)[:] = UNKNOWN
        self._run_windows(start)
        self._settle()
        scores = self._emit()
        self._seen.drop_before(self._next - self._timing.period)
        return scores

    def _count(self, start: int, observed: FloatArray) -> None:
        before = self._seen.rows(start - 1, start)[0, 0] if start > self._begin else 0
        counts = self._seen.grow(len(observed))[:, 0]
        np.cumsum(observed.sum(axis=1, dtype=np.int64), out=counts)
        counts += before

    def _run_windows(self, start: int) -> None:
        """Score the windows that end at ``start`` or later, in batches."""
        window, hop = self._timing.window, self._timing.hop
        earliest = max(start, self._begin + window - 1)
        ends = range(-(-(earliest + 1) // hop) * hop - 1, self._next, hop)
        for i in range(0, len(ends), self._backend.max_batch):
            batch = ends[i : i + self._backend.max_batch]
            back = self._next - 1 - batch[-1]
            views = self._ring.windows(len(batch), window, hop, back)
            self._add(batch, self._backend.score(*views))

    def _add(self, ends: range, outputs: Mapping[str, FloatArray]) -> None:
        """Add the newest ``reach + 1`` points of each window to the sums."""
        window, channels = self._timing.window, self._channels
        self._has_expected = "expected" in outputs
        wanted = {"score": (len(ends), window), "channel_score": (len(ends), window, channels)}
        if self._has_expected:
            wanted["expected"] = wanted["channel_score"]
        tail = self._timing.reach + 1
        points = np.zeros((len(ends), tail, 1 + 2 * channels))
        columns: dict[str, int | slice] = {
            "score": 0,
            "channel_score": slice(1, 1 + channels),
            "expected": slice(1 + channels, None),
        }
        for name, shape in wanted.items():
            output = outputs.get(name)
            if output is None or output.shape != shape:
                found = "missing" if output is None else f"of shape {output.shape}"
                raise BackendError(f"{self._backend.name}: output {name} is {found}, not {shape}")
            points[:, :, columns[name]] = output[:, window - tail :]
        if names := detail_names(outputs):
            self._keep_details(ends, [outputs[name] for name in names], tail)
        for end, point in zip(ends, points, strict=True):
            low = max(end + 1 - tail, self._sums.first)
            rows = self._sums.rows(low, end + 1)
            rows += point[low - end - 1 :]

    def _keep_details(self, ends: range, outputs: list[FloatArray], tail: int) -> None:
        """Overwrite the details of the newest ``tail`` points of each window, the newest last."""
        shape = (len(ends), self._timing.window)
        for output in outputs:
            if output.shape != shape:
                raise BackendError(
                    f"{self._backend.name}: a detail is of shape {output.shape}, not {shape}"
                )
        if self._details is None:
            self._details = RowQueue(len(outputs), np.float32)
            self._details.clear(self._due)
            self._details.grow(self._next - self._due)[:] = UNKNOWN
        points = np.stack(outputs, axis=2)[:, -tail:]
        for end, point in zip(ends, points, strict=True):
            low = max(end + 1 - tail, self._details.first)
            self._details.rows(low, end + 1)[:] = point[low - end - 1 :]

    def _settle(self) -> None:
        """Turn the sums to which no further window can add into means."""
        low, high = self._sums.first, self._next - self._timing.reach
        if high <= low:
            return
        index = np.arange(low, high, dtype=np.int64)
        hop = self._timing.hop
        ends = (index + self._timing.reach + 1) // hop - index // hop
        np.divide(self._sums.rows(low, high), ends[:, None], out=self._means.grow(high - low))
        self._sums.drop_before(high)

    def _emit(self) -> Scores:
        low, high = self._due, self._next - self._timing.delay
        if high <= low:
            return self._no_scores()
        self._due = high
        values, observed = self._ring.view(high - low, back=self._timing.delay)
        expected = self._means.rows(low, high)[:, 1 + self._channels :].astype(np.float32)
        smooth = self._smooth(low, high).astype(np.float32)
        score = np.where(self._withheld(low, high), np.float32(np.nan), smooth[:, 0])
        self._means.drop_before(high - self._timing.smoothing // 2)
        details = None
        if self._details is not None:
            details = self._details.rows(low, high).copy()
            self._details.drop_before(high)
        return Scores(
            np.arange(low, high, dtype=np.int64),
            score,
            np.ascontiguousarray(smooth[:, 1:]),
            expected if self._has_expected else None,
            values.copy(),
            observed.copy(),
            details,
        )

    def _smooth(self, low: int, high: int) -> npt.NDArray[np.float64]:
        """Score and channel scores f64[high - low, 1 + C], averaged over S points."""
        span, columns = self._timing.smoothing, 1 + self._channels
        if span == 1:
            return self._means.rows(low, high)[:, :columns]
        index = np.arange(low, high, dtype=np.int64)
        first = self._begin + self._timing.window - 1
        count = index + span // 2 + 1 - np.maximum(index - span // 2, first)
        total = centred_sum(self._means, low, high, span, columns)
        total /= count[:, None]
        return total

    def _withheld(self, low: int, high: int) -> npt.NDArray[np.bool_]:
        """Whether too little of the period ending at k + D was observed, for each k."""
        delay, period = self._timing.delay, self._timing.period
        seen = self._seen.rows(low + delay, high + delay)[:, 0].copy()
        old = max(low + delay - period, self._begin)
        if old < high + delay - period:
            before = self._seen.rows(old, high + delay - period)[:, 0]
            seen[len(seen) - len(before) :] -= before
        return 2 * seen < period * self._channels

    def _no_scores(self) -> Scores:
        nothing = np.empty((0, self._channels), np.float32)
        # Until the backend has answered, empty rows join with either kind of later ones.
        expected = None if self._has_expected is False else nothing
        return Scores(
            np.empty(0, np.int64), np.empty(0, np.float32), nothing, expected, nothing, nothing
        )
