"""The alert policy as a loop over points, written from its rules and from nothing else."""

from __future__ import annotations

import math

import numpy as np

from edge_tsad.types import PolicySettings, Scores


class NaivePolicy:
    """One point at a time; events are plain dicts with the fields of an ``AlertEvent``."""

    def __init__(self, threshold, median, settings: PolicySettings):
        self.settings, self.median = settings, median
        self.points = []  # (index, score, channel_score, expected, values, observed) since onset
        self.state = "idle"
        self.acknowledged = False
        self.closed = self.last = self.reported = None
        self.quiet = 0
        self.retune(threshold)

    def retune(self, threshold):
        self.threshold = threshold
        lower = self.median + self.settings.hysteresis * (threshold - self.median)
        self.upper, self.lower = np.float32(threshold), np.float32(min(threshold, lower))

    def extend(self, scores: Scores):
        events = []
        for i in range(len(scores)):
            expected = None if scores.expected is None else scores.expected[i]
            point = (
                int(scores.index[i]),
                scores.score[i],
                scores.channel_score[i],
                expected,
                scores.values[i],
                scores.observed[i],
            )
            events.extend(self.push(point))
        return events

    def push(self, point):
        previous, self.last = self.last, point[0]
        return self.follow(point) if self.state == "firing" else self.watch(point, previous)

    def follow(self, point):
        """An alert is open."""
        index, score = point[0], point[1]
        self.points.append(point)
        if not math.isnan(score):
            self.quiet = self.quiet + 1 if score < self.lower else 0
        if self.quiet >= self.settings.resolve_after:
            event = self.event("end")
            self.state, self.closed, self.points = "idle", index, []
            self.acknowledged = False
            return [event]
        due = index - self.reported >= self.settings.update_every
        return [self.event("update")] if due else []

    def watch(self, point, previous):
        """No alert is open; ``previous`` is the index before."""
        index, score = point[0], point[1]
        cooling = self.closed is not None and index <= self.closed + self.settings.cooldown
        above = not math.isnan(score) and score >= self.upper
        if cooling or not above or self.state != "pending" or previous != index - 1:
            self.state, self.points = "idle", []
        if cooling or not above:
            return []
        self.state = "pending"
        self.points.append(point)
        if len(self.points) < self.settings.minimum_duration:
            return []
        self.state, self.quiet = "firing", 0
        return [self.event("new")]

    def acknowledge(self):
        if self.state != "firing" or self.acknowledged:
            return None
        self.acknowledged = True
        return self.event("update")

    def name(self):
        if self.state == "firing":
            return "acknowledged" if self.acknowledged else "firing"
        if self.state == "pending":
            return "pending"
        if self.closed is not None and self.last <= self.closed + self.settings.cooldown:
            return "resolved"
        return "idle"

    def event(self, kind):
        self.reported = self.points[-1][0]
        onset = self.points[0][0]
        best = None
        for point in self.points:
            if not math.isnan(point[1]) and (best is None or point[1] > best[1]):
                best = point
        total = sum(float(part) for part in best[2])
        share = [float(part) / total if total > 0 else 0.0 for part in best[2]]
        span = self.reported - onset + 1
        seen = sum(float(cell) for point in self.points for cell in point[5])
        return {
            "kind": kind,
            "onset": onset,
            "index": self.reported,
            "score": float(self.points[-1][1]),
            "peak": float(best[1]),
            "peak_index": best[0],
            "channel_share": share,
            "expected": best[3],
            "values": best[4],
            "observed": best[5],
            "observed_fraction": seen / (span * len(best[5])),
            "threshold": self.threshold,
            "acknowledged": self.acknowledged,
        }
