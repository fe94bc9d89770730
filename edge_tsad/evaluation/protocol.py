"""What a detector is shown, and when: the rules of an honest benchmark, held by code.

- A candidate is fitted on the history alone: values, grid and units. Neither the name of the series
  nor those of its channels (names hold labels), nor labels, nor the length of the test reach it.
- It then gets a stream that only goes forward, chunk by chunk, each a copy. A score counts once,
  and only for a point that has been shown.
- Where history and test are one recording the stream starts with the last T points of history.
  Where they are not, the first points of the test are warm-up and left out for every candidate.
- What a candidate never scored (its warm-up, its delay at the end) keeps the lowest score there is.
- An exception, a score that is infinite, no score at all, or a time-out is a miss.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edge_tsad.errors import DataError, EdgeTsadError
from edge_tsad.evaluation.candidates import Candidate, Fitted, Stream
from edge_tsad.evaluation.labelled import LabelledSeries
from edge_tsad.training.plan import plan_timing
from edge_tsad.training.series import Series
from edge_tsad.types import Channel, FloatArray, IndexArray

__all__ = [
    "CHUNK",
    "Scored",
    "history_of",
    "kept_rows",
    "run_candidate",
    "score_all",
    "warmup_points",
]

CHUNK = 4096
"""Points shown at a time to a candidate that streams."""

_MULTIPLE = 8
"""Windows are multiples of this many points wherever no other patch length is asked for."""

_FALLBACK_WARMUP = 256

_NO_SCORE = "no point was given a score"

Float64 = npt.NDArray[np.float64]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Scored:
    """Scores f64[n] of the test rows, NaN where none was given; ``miss`` says why all are void.

    ``whole_score`` f64[N] and ``whole_miss`` are the same of the whole series, where it was asked
    for.
    """

    score: Float64
    fitted: Fitted | None = None
    fit_s: float = 0.0
    score_s: float = 0.0
    miss: str = ""
    whole_score: Float64 | None = None
    whole_miss: str = ""


def history_of(series: LabelledSeries) -> Series:
    """What a candidate may know: the history, nameless."""
    rows = slice(0, series.train_end)
    units = series.units or ("",) * series.values.shape[1]
    return Series(
        times_ns=series.index[rows] * series.step_ns,
        values=series.values[rows].copy(),
        channels=tuple(Channel(f"c{number}", unit) for number, unit in enumerate(units)),
        step_ns=series.step_ns,
        has_rate=series.has_rate,
        name="history",
    )


def warmup_points(history: Series) -> int:
    """Points at the start of an unconnected test that are left out for every candidate.

    The window T that this history would be given by default, whoever is being measured.
    """
    try:
        return plan_timing(history, multiple=_MULTIPLE).window
    except EdgeTsadError:
        return _FALLBACK_WARMUP


def kept_rows(series: LabelledSeries, warmup: int) -> npt.NDArray[np.bool_]:
    """Which test rows count: all but ``warmup`` points after each start without a past."""
    index = series.index[series.train_end :]
    steps = np.diff(index, prepend=index[0] - (1 if series.contiguous else warmup + 1))
    starts = np.flatnonzero(steps > warmup)
    newest = np.full(len(index), np.iinfo(np.int64).min // 2)
    newest[starts] = index[starts]
    return np.asarray(index - np.maximum.accumulate(newest) >= warmup)


def run_candidate(
    candidate: Candidate,
    series: LabelledSeries,
    seed: int,
    *,
    timeout_s: float = 0.0,
    board: bool = False,
) -> Scored:
    """Fit on the history, score the test; whatever goes wrong is a miss and never raised.

    It may take ``timeout_s`` in all (0 = any time). With ``board`` history and test are also scored
    as one stream, into ``whole_score``, in as much time again.
    """
    found, miss = _attempt(lambda: _run(candidate, series, seed), timeout_s)
    if found is None:
        return Scored(np.full(len(series) - series.train_end, np.nan), miss=miss, whole_miss=miss)
    fitted = found.fitted
    if not board or fitted is None:
        return found

    def whole() -> Float64:
        return score_all(fitted.stream(), series.index, series.values, whole=candidate.whole)

    score, miss = _attempt(whole, timeout_s)
    if score is not None and np.isnan(score).all():
        miss = _NO_SCORE
    return replace(found, whole_score=score, whole_miss=miss)


def _attempt(work: Callable[[], Result], timeout_s: float) -> tuple[Result | None, str]:
    """What ``work`` gives, or None and why it gave nothing."""
    try:
        with _time_limit(timeout_s):
            return work(), ""
    except TimeoutError:
        return None, f"time-out after {timeout_s:g} s"
    except Exception as error:  # a benchmark goes on; the miss is counted and its reason shown
        return None, f"{type(error).__name__}: {error}"


def _run(candidate: Candidate, series: LabelledSeries, seed: int) -> Scored:
    candidate.prepare()
    start = time.perf_counter()
    fitted = candidate.fit(history_of(series), seed)
    fit_s = time.perf_counter() - start
    end = series.train_end
    primed = max(0, end - fitted.window) if series.contiguous else end
    rows, first = slice(primed, None), end - primed
    start = time.perf_counter()
    stream = fitted.stream()
    score = score_all(stream, series.index[rows], series.values[rows], whole=candidate.whole)
    score_s = time.perf_counter() - start
    score = score[first:]
    miss = _NO_SCORE if np.isnan(score).all() else ""
    return Scored(score, fitted, fit_s, score_s, miss=miss)


def score_all(
    stream: Stream, index: IndexArray, values: FloatArray, *, whole: bool = False
) -> Float64:
    """Show rows to ``stream`` in their order and collect the scores, f64[n], NaN where none came.

    Raises:
        DataError: a score came twice, out of order, for a point not yet shown, or infinite.
    """
    scores = np.full(len(index), np.nan)
    emitted = np.iinfo(np.int64).min
    size = len(index) if whole else CHUNK
    for begin in range(0, len(index), size):
        shown = slice(begin, begin + size)
        where, score = stream.extend(index[shown].copy(), values[shown].copy())
        if not len(where):
            continue
        if where[0] <= emitted or np.any(np.diff(where) <= 0):
            raise DataError("scores: a point was scored twice or out of order")
        emitted = int(where[-1])
        if emitted > index[shown][-1]:
            raise DataError(f"scores: point {emitted} was scored before it was shown")
        if np.isinf(score).any():
            raise DataError("scores: at least one is infinite")
        # A scorer that bridges a short gap scores cells that are no rows; they have no label.
        rows = np.searchsorted(index, where)
        known = index[np.minimum(rows, len(index) - 1)] == where
        scores[rows[known]] = score[known]
    return scores


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the main thread after ``seconds``, once running C code returns.

    Other threads, such as Dask's, cannot be interrupted: there it is raised at the end.
    """
    if seconds <= 0:
        yield
        return
    if threading.current_thread() is not threading.main_thread():
        start = time.perf_counter()
        yield
        if time.perf_counter() - start > seconds:
            raise TimeoutError
        return

    def expired(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
