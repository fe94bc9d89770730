"""The loop of a gateway: sources → pipelines → outbox → broker, until told to stop.

Threads read the sources and keep the connection; scoring, storage and every decision belong to the
one thread that calls :meth:`Gateway.run`.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

from edge_tsad import __version__
from edge_tsad.config import GatewayConfig
from edge_tsad.errors import EdgeTsadError
from edge_tsad.runtime import payload
from edge_tsad.runtime.choices import Choices
from edge_tsad.runtime.clock import Clock, SystemClock
from edge_tsad.runtime.delivery import Delivery
from edge_tsad.runtime.feed import Arrival, Arrivals, Feed
from edge_tsad.runtime.history import History
from edge_tsad.runtime.lock import lock
from edge_tsad.runtime.opening import OpenStream, StreamOpener
from edge_tsad.runtime.outbox import Bounds, Outbox
from edge_tsad.runtime.reception import Reception, connect
from edge_tsad.runtime.segments import Layout
from edge_tsad.runtime.sinks.base import Sink
from edge_tsad.runtime.stats import peak_rss_mb
from edge_tsad.runtime.topics import Topics
from edge_tsad.runtime.updates import Updates
from edge_tsad.runtime.worker import StreamWorker
from edge_tsad.types import Now

__all__ = ["Gateway"]

log = logging.getLogger(__name__)

TICK_S = 0.1
DESCRIBE_EVERY_S = 10.0
FAREWELL_S = 5.0
STOP_S = 2.0
CONNECT_S = 3.0
DAY_S = 86_400.0


class Gateway:
    """All streams of one configuration.

    Args:
        config: what to run.
        clock: tells the time.
        sink: where messages go; the broker of ``config`` when None.

    Raises:
        EdgeTsadError: something does not exist or does not fit; nothing has been started.
    """

    def __init__(
        self, config: GatewayConfig, clock: Clock | None = None, sink: Sink | None = None
    ) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        choices = Choices(config.folder / "choices.json")
        streams = StreamOpener(config, choices).open_all()
        self._topics = Topics(config.site, config.device)
        self.sink = sink or connect(config)
        now = self.clock.now()
        self._lock = lock(config.folder)
        try:
            self.outbox = Outbox(config.folder / "outbox.db", bounds(config), now)
        except EdgeTsadError:
            self._lock.close()
            raise
        choices.save()
        folder = config.folder / "state"
        folder.mkdir(exist_ok=True)
        self.workers = [
            StreamWorker(
                stream, self.outbox, folder / f"{stream.facts.stream}.npz", history(config, stream)
            )
            for stream in streams
        ]
        self.arrivals = Arrivals()
        self._feeds = [
            Feed(number, worker.facts.stream, worker.stream.source, self.arrivals)
            for number, worker in enumerate(self.workers)
        ]
        self.updates = Updates(config, choices, self.workers, self.sink, self._topics)
        self.delivery = Delivery(self.outbox, self.sink, self._topics.alert)
        self.reception = Reception(config, self.workers, self.outbox, self.delivery, self.sink)
        self.errors: list[str] = []
        self.restart = False
        self._started = now
        self._described: dict[int, tuple[Any, float]] = {}
        self._scores_at_s = self._status_at_s = self._chores_at_s = 0.0
        self._snapshot_at_s = now.monotonic_s + config.state.interval_s

    def stop(self) -> None:
        """Make :meth:`run` return soon; may be called from a signal handler."""
        self.arrivals.stop.set()

    def run(self) -> None:
        """Run until :meth:`stop`, or until every source has ended and all alerts are delivered.

        What cannot be delivered stays in the outbox for the next run. ``errors`` says afterwards
        which streams failed, and ``restart`` that a slot was switched: run anew.
        """
        try:
            self._publish(self.clock.now())
            self.reception.begin(self.clock.now())
            self.sink.start()
            for feed in self._feeds:
                feed.start()
            while not (self.arrivals.stop.is_set() or all(w.finished for w in self.workers)):
                self._turn(TICK_S)
            if self.arrivals.stop.is_set():
                self._take_the_rest()
            else:
                self._drain()
        finally:
            self.arrivals.stop.set()
            self._close()

    def stats(self) -> dict[str, Any]:
        """What has happened so far and what it cost."""
        return {
            "version": __version__,
            "duration_s": round(self.clock.now().monotonic_s - self._started.monotonic_s, 3),
            "cpu_s": round(time.process_time(), 3),
            "peak_rss_mb": round(peak_rss_mb(), 1),
            "streams": {worker.facts.stream: worker.stats() for worker in self.workers},
            "outbox": self._outbox_message(),
        }

    def _turn(self, wait_s: float) -> None:
        """One round of the loop."""
        arrival = self.arrivals.get(wait_s)
        now = self.clock.now()
        if arrival is not None:
            self._take(arrival, now)
        self.reception.answer(now)
        if arrival is None or now.monotonic_s >= self._chores_at_s:
            self._chores_at_s = now.monotonic_s + TICK_S
            for worker in self.workers:
                self._attempt(worker, worker.advance, now)
            self.sink.tick()
            self.reception.tick(now)
            self._follow_slots(now)
            self._publish(now)
            self._snapshot_when_due(now)
        self.delivery.tick(now)

    def _follow_slots(self, now: Now) -> None:
        """Stop where a slot was switched: whoever started the gateway starts it anew."""
        self.updates.tick(now)
        if self.updates.switched:
            log.info("a slot was switched; the gateway restarts with the other bundle")
            self.restart = True
            self.stop()

    def _take(self, arrival: Arrival, now: Now) -> None:
        worker = self.workers[arrival.stream]
        if worker.finished:
            return
        if arrival.batch is not None:
            self._attempt(worker, worker.take, arrival.batch, now)
            self.updates.take(arrival.stream, arrival.batch)
            return
        if arrival.error:
            self._fail(worker, arrival.error)
        self._attempt(worker, worker.finish, now)

    def _attempt(self, worker: StreamWorker, step: Callable[..., None], *arguments: Any) -> None:
        """A step of one stream, whose failure ends that stream and no other."""
        try:
            step(*arguments)
        except EdgeTsadError as e:
            self._fail(worker, str(e))
            worker.finished = True

    def _fail(self, worker: StreamWorker, error: str) -> None:
        worker.health.add("FAILED")
        self.errors.append(f"{worker.facts.stream}: {error}")
        log.error("%s has failed: %s", worker.facts.stream, error)

    def _publish(self, now: Now) -> None:
        """Say what has changed: at once where it matters, else every ten seconds."""
        for number, worker in enumerate(self.workers):
            essence = (
                worker.process,
                tuple(sorted(worker.all_health())),
                worker.standing.silence,
                worker.stream.sensitivity,
            )
            before, due_s = self._described.get(number, (None, 0.0))
            if essence != before or now.monotonic_s >= due_s:
                self._described[number] = (essence, now.monotonic_s + DESCRIBE_EVERY_S)
                topic = self._topics.state(worker.facts.stream)
                self.sink.retain(topic, payload.pack(worker.describe()))
        if now.monotonic_s >= self._status_at_s:
            self._status_at_s = now.monotonic_s + DESCRIBE_EVERY_S
            self.sink.retain(self._topics.status, payload.pack(self._status()))
        interval_s = self.config.broker.score_interval_s
        if interval_s and now.monotonic_s >= self._scores_at_s:
            self._scores_at_s = now.monotonic_s + interval_s
            for worker in self.workers:
                if (message := worker.score_message()) is not None:
                    self.sink.offer(self._topics.score(worker.facts.stream), payload.pack(message))

    def _status(self) -> dict[str, Any]:
        broker = self.config.broker
        return {
            "online": True,
            "version": __version__,
            "protocol": broker.protocol,
            "streams": [worker.facts.stream for worker in self.workers],
            "outbox": self._outbox_message(),
            "refused": self.delivery.refused or None,
            "proof": self.sink.proof,
            "commands": list(self.config.commands.allow),
        }

    def _outbox_message(self) -> dict[str, Any]:
        return {
            **dataclasses.asdict(self.outbox.counts),
            "epoch": self.outbox.epoch,
            "next_seq": self.outbox.next_seq,
            "set_aside": self.outbox.set_aside and self.outbox.set_aside.name,
        }

    def _snapshot_when_due(self, now: Now) -> None:
        if now.monotonic_s >= self._snapshot_at_s:
            written = self._snapshot()
            settings = self.config.state
            affordable_s = written * DAY_S / (settings.budget_mb_per_day * 1e6)
            self._snapshot_at_s = now.monotonic_s + max(settings.interval_s, affordable_s)

    def _snapshot(self) -> int:
        """Write the state of every stream; returns the bytes written."""
        written = 0
        for worker in self.workers:
            try:
                written += worker.snapshot()
            except EdgeTsadError as e:
                if "STATE_FAILED" not in worker.health:
                    log.error("%s: its state is not saved: %s", worker.facts.stream, e)
                worker.health.add("STATE_FAILED")
            else:
                worker.health.discard("STATE_FAILED")
        return written

    def _take_the_rest(self) -> None:
        """After a stop: what the sources had already delivered is still scored."""
        for feed in self._feeds:
            feed.join(1.0)
        while (arrival := self.arrivals.get(0)) is not None:
            if arrival.batch is not None:
                self._take(arrival, self.clock.now())
        self._deliver(
            STOP_S,
            lambda: not (self._uncommitted or (self.sink.connection and self.delivery.waiting)),
        )

    @property
    def _uncommitted(self) -> bool:
        return any(worker.uncommitted for worker in self.workers)

    def _drain(self) -> None:
        """After the end of all sources: deliver what waits, as far as the broker is there."""
        self._publish(self.clock.now())
        stopped, limit_s = self.arrivals.stop.is_set, self.config.broker.drain_s
        self._deliver(min(CONNECT_S, limit_s), lambda: self.sink.connection or stopped())
        self._deliver(
            limit_s, lambda: not (self._uncommitted or self.delivery.waiting) or stopped()
        )
        if self.delivery.waiting:
            log.warning(
                "%d alert(s) stay in the outbox %s and are sent by the next run",
                self.outbox.counts.pending,
                self.outbox.path,
            )

    def _deliver(self, limit_s: float, done: Callable[[], object]) -> None:
        """Deliver, and commit what could not be, until ``done`` or for ``limit_s``."""
        now = self.clock.now()
        end_s = now.monotonic_s + limit_s
        while not done() and now.monotonic_s < end_s:
            if now.monotonic_s >= self._chores_at_s:
                self._chores_at_s = now.monotonic_s + TICK_S
                self._retry(now)
            self.sink.tick()
            self.delivery.tick(now)
            time.sleep(0.02)
            now = self.clock.now()

    def _close(self) -> None:
        """Save, say good-bye and let go."""
        self._retry(self.clock.now())
        for worker in self.workers:
            if worker.uncommitted:
                self.errors.append(
                    f"{worker.facts.stream}: {worker.uncommitted} alert(s) could not be stored in"
                    f" the outbox {self.outbox.path} and were not sent."
                )
        self._snapshot()
        self._hand_over()
        for worker in self.workers:
            worker.close(self.clock.now())
        farewell = (self._topics.status, payload.pack({"online": False, "reason": "stopped"}))
        self.sink.close(farewell, FAREWELL_S)
        self.delivery.tick(self.clock.now())  # acknowledgements that came meanwhile
        self.reception.tick(self.clock.now())
        self.outbox.close()
        self._lock.close()

    def _hand_over(self) -> None:
        """Where a candidate takes the place of a bundle, it goes on from its own state."""
        for number, saved in self.updates.handovers().items():
            try:
                self.workers[number].hand_over(saved)
            except EdgeTsadError as e:
                log.error("%s: warms up anew: %s", self.workers[number].facts.stream, e)
        self.updates.close()

    def _retry(self, now: Now) -> None:
        """Commit what could not be committed before."""
        for worker in self.workers:
            worker.retry(now)


def history(config: GatewayConfig, stream: OpenStream) -> History | None:
    """Where the stream is recorded; None where it is not."""
    if not stream.record:
        return None
    facts = stream.facts
    layout = Layout(facts.timing.step_ns, facts.channels, facts.timing.has_rate)
    folder = config.folder / "history" / facts.stream
    return History(folder, layout, int(config.history.max_mb * 1e6), config.history.sync_s)


def bounds(config: GatewayConfig) -> Bounds:
    """The outbox's bounds in its own units."""
    outbox = config.outbox
    return Bounds(
        rows=outbox.max_rows,
        bytes=int(outbox.max_mb * 1e6),
        age_s=outbox.max_age_days * DAY_S,
        retention_s=outbox.retention_days * DAY_S,
    )
