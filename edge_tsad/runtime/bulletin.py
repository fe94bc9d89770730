"""What a gateway says of its streams and of itself while it runs: states, status and scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge_tsad.runtime import payload
from edge_tsad.runtime.sinks.base import Sink
from edge_tsad.runtime.topics import Topics
from edge_tsad.runtime.worker import StreamWorker
from edge_tsad.types import Now

__all__ = ["Bulletin"]

LOOK_EVERY_S = 0.5
DESCRIBE_EVERY_S = 10.0


class Bulletin:
    """Retains what has changed, soon where it matters and else every ten seconds.

    Args:
        workers: of the streams there are, as its owner keeps the list.
        sink: where messages go.
        topics: their topics.
        status: makes the message about the gateway as a whole.
        score_interval_s: between two scores of a stream; 0 for none.
    """

    def __init__(
        self,
        workers: list[StreamWorker],
        sink: Sink,
        topics: Topics,
        status: Callable[[], dict[str, Any]],
        score_interval_s: float,
    ) -> None:
        self._workers, self._sink, self._topics = workers, sink, topics
        self._status, self._score_interval_s = status, score_interval_s
        self._described: dict[str, tuple[Any, float]] = {}
        self._look_at_s = self._scores_at_s = self._status_at_s = 0.0

    def tick(self, now: Now) -> None:
        """To be called a few times a second."""
        if now.monotonic_s >= self._look_at_s:
            self.look(now)
        if now.monotonic_s >= self._status_at_s:
            self._status_at_s = now.monotonic_s + DESCRIBE_EVERY_S
            self._sink.retain(self._topics.status, payload.pack(self._status()))
        if self._score_interval_s and now.monotonic_s >= self._scores_at_s:
            self._scores_at_s = now.monotonic_s + self._score_interval_s
            self._publish_scores()

    def look(self, now: Now) -> None:
        """Say at once which states have changed."""
        self._look_at_s = now.monotonic_s + LOOK_EVERY_S
        for worker in self._workers:
            name = worker.facts.stream
            essence = (
                worker.process,
                tuple(sorted(worker.all_health())),
                worker.standing.silence,
                worker.stream.sensitivity,
            )
            before, due_s = self._described.get(name, (None, 0.0))
            if essence != before or now.monotonic_s >= due_s:
                self._described[name] = (essence, now.monotonic_s + DESCRIBE_EVERY_S)
                self._sink.retain(self._topics.state(name), payload.pack(worker.describe()))

    def forget(self, stream: str) -> None:
        """A stream is not there any more; one that comes under its name is told at once."""
        self._described.pop(stream, None)

    def _publish_scores(self) -> None:
        for worker in self._workers:
            if (message := worker.score_message()) is not None:
                self._sink.offer(self._topics.score(worker.facts.stream), payload.pack(message))
