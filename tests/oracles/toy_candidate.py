"""Candidates of a few lines for tests of the benchmark, and series with one planted anomaly."""

import dataclasses
import json
import os
import sys

import numpy as np

from edge_tsad.evaluation.candidates import Alarm, Candidate, Fitted
from edge_tsad.evaluation.labelled import LabelledSeries
from edge_tsad.types import PolicySettings

DELAY = 7


def planted(name="a", *, n=1200, train_end=500, begin=800, length=30, seed=0, **facts):
    k = np.arange(n)
    noise = np.random.default_rng(seed).normal(0, 0.05, n)
    values = (np.sin(2 * np.pi * k / 40) + noise).astype(np.float32)
    labels = np.zeros(n, np.uint8)
    values[begin : begin + length] += 3
    labels[begin : begin + length] = 1
    return LabelledSeries(
        name, k, values[:, None], labels, train_end, recording=facts.pop("recording", name), **facts
    )


def write_set(folder, name, series, **changes):
    """A data set on disk; ``changes`` replace fields of all entries."""
    arrays = {one.name: one.values[:, 0] for one in series}
    entries = [
        {
            "name": one.name,
            "train_end": one.train_end,
            "regions": [[int(b), int(e)] for b, e in _regions(one.labels)],
            "length": len(one),
            "recording": one.recording,
            **({"half": one.half} if one.half else {}),
            **changes,
        }
        for one in series
    ]
    np.savez(folder / f"{name}.npz", **arrays)
    (folder / f"{name}.json").write_text(json.dumps(entries))
    return folder / f"{name}.npz"


def _regions(labels):
    edges = np.flatnonzero(np.diff(np.concatenate([[0], labels, [0]])))
    return edges.reshape(-1, 2)


class Distance(Candidate):
    """Distance from the history's mean, averaged over ``DELAY`` later points."""

    name = "distance"

    def __init__(self):
        self.seen = []

    def settings(self):
        return {"name": self.name}

    def fit(self, history, seed):
        self.seen.append(history)
        mean = float(np.nanmean(history.values)) + 1e-6 * seed
        alarm = Alarm(
            1.5, 0.6, PolicySettings(), "CALIBRATED", 1e-4, (1e-5, 1e-3), lambda points: (0, 5)
        )
        return Fitted(lambda: _Distances(mean), 16, DELAY, parameters=1, alarm=alarm)


class Telling(Distance):
    """Tells where it runs."""

    name = "telling"

    def fit(self, history, seed):
        told = {"pid": os.getpid(), "modules": " ".join(sys.modules)}
        return dataclasses.replace(super().fit(history, seed), facts=told)


class _Distances:
    def __init__(self, mean):
        self.mean, self.index, self.values = mean, [], []

    def extend(self, index, values):
        self.index += index.tolist()
        self.values += np.abs(values[:, 0] - self.mean).tolist()
        ready = len(self.index) - DELAY
        if ready <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        scores = [np.mean(self.values[k : k + DELAY + 1]) for k in range(ready)]
        emitted = np.array(self.index[:ready])
        self.index, self.values = self.index[ready:], self.values[ready:]
        return emitted, np.array(scores, np.float32)


class Broken(Distance):
    """Goes wrong in the way it is told to."""

    def __init__(self, how):
        super().__init__()
        self.how, self.name = how, how

    def fit(self, history, seed):
        if self.how == "raises":
            raise ValueError("no such luck")
        if self.how == "hangs":
            while True:
                pass
        if self.how == "dies":
            os._exit(3)
        return Fitted(lambda: self, 16, 0)

    def extend(self, index, values):
        score = np.abs(values[:, 0])
        if self.how == "nan":
            return index, np.full(len(index), np.nan, np.float32)
        if self.how == "infinite":
            return index, np.full(len(index), np.inf, np.float32)
        if self.how == "early":
            return index + 1, score
        if self.how == "twice":
            return np.repeat(index, 2), np.repeat(score, 2)
        return index, np.where(score > 1.5, np.nan, score).astype(np.float32)
