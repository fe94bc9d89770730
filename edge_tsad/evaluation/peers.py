"""Published methods in the same run: same history, same test, same metrics.

Every peer works on windows of one period, found in the history as the metrics find theirs, and the
value of a point is the mean over the windows that hold it, as in TSB-AD and aeon. One that joins
the test with itself, or ranks or scales over it, is labelled ``sees_future``.

References:
    Matrix profile: Yeh et al., "Matrix Profile I", ICDM 2016, by stumpy (Law, JOSS 2019); its left
    form is what DAMP (Lu et al., KDD 2022) computes.
    KMeansAD, Extended Isolation Forest and DWT-MLEAD: as implemented by aeon (Middlehurst et al.,
    JMLR 2024), with its defaults; ``kmeans-ad-z`` is KMeansAD on z-normalised windows, the form
    that TSB-AD evaluates.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_tsad.errors import EdgeTsadError
from edge_tsad.evaluation.candidates import Candidate, Fitted
from edge_tsad.evaluation.metrics import evaluation_window
from edge_tsad.training.series import Series
from edge_tsad.types import FloatArray, IndexArray

__all__ = ["PEERS", "Peer"]

Float64 = npt.NDArray[np.float64]
Score = Callable[[Float64], Float64]
Learn = Callable[[Float64, int, int], Score]
"""``learn(history [h, C], window, seed)`` returns what scores a test [n, C] point by point, [n]."""

_SHORTEST = 4
_BLOCK = 4096


class Peer(Candidate):
    """A batch method, from ``package``; it gets the primed test in one piece."""

    whole = True

    def __init__(
        self,
        name: str,
        package: str,
        learn: Learn,
        *,
        sees_future: bool = False,
        random: bool = False,
    ) -> None:
        self.name, self._package, self._learn = name, package, learn
        self.sees_future, self.random = sees_future, random

    def settings(self) -> dict[str, object]:
        """Name, package and its version."""
        try:
            version = importlib.metadata.version(self._package)
        except importlib.metadata.PackageNotFoundError as error:
            raise EdgeTsadError(
                f'{self.name}: needs {self._package}; pip install "edge-tsad[bench]"'
            ) from error
        return {"name": self.name, self._package: version}

    def prepare(self) -> None:
        """Compile what is compiled at its first use."""
        wave = np.sin(np.arange(64.0))[:, None]
        with _quiet():
            self._learn(wave, _SHORTEST, 0)(wave)

    def fit(self, history: Series, seed: int) -> Fitted:
        """Learn from the history; a missing value is taken for the one before it."""
        known = _complete(history.values)
        window = min(max(evaluation_window(known[:, 0]), _SHORTEST), len(known) // 3)
        with _quiet():
            score = self._learn(known, window, seed)
        last = history.values[-1]
        return Fitted(lambda: _Batch(score, last), window, window - 1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Their warnings (constant stretches, empty clusters) are theirs; the figures tell."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


@dataclass
class _Batch:
    score: Score
    last: FloatArray

    def extend(self, index: IndexArray, values: FloatArray) -> tuple[IndexArray, FloatArray]:
        """Scores of one whole test."""
        with _quiet():
            return index, self.score(_complete(values, self.last)).astype(np.float32)


def _complete(values: FloatArray, last: FloatArray | None = None) -> Float64:
    """f64[n, C] with missing values replaced by the last one, 0 before any."""
    first = np.zeros((1, values.shape[1])) if last is None else last[None]
    padded = np.concatenate([np.nan_to_num(first), values]).astype(np.float64)
    rows = np.arange(len(padded))[:, None]
    newest = np.maximum.accumulate(np.where(np.isnan(padded), 0, rows), axis=0)
    return np.asarray(np.take_along_axis(padded, newest, axis=0)[1:])


def _points(windows: Float64, window: int) -> Float64:
    """Mean over the windows [n − window + 1] that hold a point, [n]."""
    sums = np.concatenate([[0.0], np.cumsum(windows)])
    point = np.arange(len(windows) + window - 1)
    low, high = np.maximum(point - window + 1, 0), np.minimum(point + 1, len(windows))
    return np.asarray((sums[high] - sums[low]) / (high - low))


def _normalized(windows: Float64) -> Float64:
    """Each row z-normalised; a constant one is 0."""
    centred = windows - windows.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, keepdims=True)
    flat = spread <= 1e-12 * np.abs(windows).max(axis=1, keepdims=True)
    return np.where(flat, 0.0, centred / np.where(flat, 1.0, spread))


def _profile(values: Float64, window: int, other: Float64 | None = None) -> npt.NDArray[Any]:
    import stumpy  # noqa: PLC0415 - compiles for seconds, and is asked for by name only

    joined = {"T_B": other, "ignore_trivial": False} if other is not None else {}
    return np.asarray(stumpy.stump(values, window, **joined))


def _mean_over_channels(one: Callable[[int, Float64], Float64]) -> Score:
    """Score each channel by ``one(channel, values [n])`` and take the mean."""

    def score(test: Float64) -> Float64:
        channels = [one(channel, test[:, channel]) for channel in range(test.shape[1])]
        return np.asarray(np.mean(channels, axis=0))

    return score


def _profile_to_history(history: Float64, window: int, _seed: int) -> Score:
    """Distance of each window to the nearest one of the history."""

    def one(channel: int, values: Float64) -> Float64:
        distances = _profile(values, window, history[:, channel])[:, 0].astype(np.float64)
        return _points(distances, window)

    return _mean_over_channels(one)


def _profile_to_past(history: Float64, window: int, _seed: int) -> Score:
    """Distance to the nearest window of the history and of the test so far (left profile)."""

    def one(channel: int, values: Float64) -> Float64:
        joined = np.concatenate([history[:, channel], values])
        left = _profile(joined, window)[:, 2].astype(np.int64)
        first = len(history)
        return _points(_distances(joined, window, left)[first:], window)

    return _mean_over_channels(one)


def _distances(values: Float64, window: int, neighbours: IndexArray) -> Float64:
    """Z-normalised distance of each window to the one at ``neighbours`` (-1: none, 0)."""
    windows = np.lib.stride_tricks.sliding_window_view(values, window)
    parts = []
    for begin in range(0, len(neighbours), _BLOCK):
        near = neighbours[begin : begin + _BLOCK]
        own = _normalized(windows[begin : begin + _BLOCK])
        other = _normalized(windows[np.maximum(near, 0)])
        parts.append(np.where(near < 0, 0.0, np.linalg.norm(own - other, axis=1)))
    return np.concatenate(parts)


def _profile_to_all(history: Float64, window: int, _seed: int) -> Score:
    """Distance to the nearest window anywhere in history and test, later ones included."""

    def one(channel: int, values: Float64) -> Float64:
        joined = np.concatenate([history[:, channel], values])
        distances = _profile(joined, window)[len(history) :, 0].astype(np.float64)
        return _points(distances, window)

    return _mean_over_channels(one)


def _aeon(module: str, name: str, **options: Any) -> Any:
    return getattr(importlib.import_module(f"aeon.anomaly_detection.series.{module}"), name)(
        **options
    )


def _kmeans(history: Float64, window: int, seed: int) -> Score:
    model = _aeon("distance_based", "KMeansAD", window_size=window, random_state=seed)
    model.fit(history, axis=0)
    return lambda test: np.asarray(model.predict(test, axis=0), np.float64)


def _kmeans_normalized(history: Float64, window: int, seed: int) -> Score:
    """KMeansAD on z-normalised windows, each given as one point of ``window`` channels."""
    model = _aeon("distance_based", "KMeansAD", window_size=1, random_state=seed)
    model.fit(_rows(history, window), axis=0)
    return lambda test: _points(model.predict(_rows(test, window), axis=0), window)


def _rows(values: Float64, window: int) -> Float64:
    """Z-normalised windows of all channels side by side, [n − window + 1, C · window]."""
    views = np.lib.stride_tricks.sliding_window_view(values, window, axis=0)
    return np.concatenate(
        [_normalized(views[:, channel]) for channel in range(views.shape[1])], axis=1
    )


def _isolation_forest(history: Float64, window: int, seed: int) -> Score:
    model = _aeon(
        "outlier_detection", "ExtendedIsolationForest", window_size=window, random_state=seed
    )
    model.fit(history, axis=0)
    return lambda test: np.asarray(model.predict(test, axis=0), np.float64)


def _wavelets(history: Float64, _window: int, _seed: int) -> Score:
    def one(channel: int, values: Float64) -> Float64:
        joined = np.concatenate([history[:, channel], values])
        model = _aeon("distribution_based", "DWT_MLEAD")
        return np.asarray(model.fit_predict(joined, axis=0), np.float64)[len(history) :]

    return _mean_over_channels(one)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("matrix-profile", "stumpy", _profile_to_history),
        Peer("matrix-profile-left", "stumpy", _profile_to_past),
        Peer("matrix-profile-self", "stumpy", _profile_to_all, sees_future=True),
        Peer("kmeans-ad", "aeon", _kmeans, random=True),
        Peer("kmeans-ad-z", "aeon", _kmeans_normalized, random=True),
        Peer("isolation-forest", "aeon", _isolation_forest, random=True),
        Peer("dwt-mlead", "aeon", _wavelets, sees_future=True),
    )
}
"""The peers by name."""
