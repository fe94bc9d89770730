"""The loop of a gateway: sources → pipelines → outbox → broker, until told to stop.

Threads read the sources and keep the connection; scoring, storage and every decision belong to the
one thread that calls :meth:`Gateway.run`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from edge_tsad.config import GatewayConfig
from edge_tsad.errors import EdgeTsadError
from edge_tsad.files import make_folder, sweep
from edge_tsad.runtime import gateway_report, payload
from edge_tsad.runtime.bulletin import Bulletin
from edge_tsad.runtime.choices import Choices
from edge_tsad.runtime.clock import Clock, SystemClock
from edge_tsad.runtime.delivery import Delivery
from edge_tsad.runtime.feed import Feed
from edge_tsad.runtime.history import History
from edge_tsad.runtime.intake import Intake
from edge_tsad.runtime.life import Life
from edge_tsad.runtime.lock import lock
from edge_tsad.runtime.opening import OpenStream, StreamOpener
from edge_tsad.runtime.outbox import Bounds, Outbox
from edge_tsad.runtime.reception import Reception, connect
from edge_tsad.runtime.reloading import Reloader
from edge_tsad.runtime.segments import Layout
from edge_tsad.runtime.sinks.base import Sink
from edge_tsad.runtime.snapshots import Snapshots
from edge_tsad.runtime.sources.base import Batch
from edge_tsad.runtime.stats import Writes
from edge_tsad.runtime.supervisor import Supervisor
from edge_tsad.runtime.topics import Topics
from edge_tsad.runtime.updates import Updates
from edge_tsad.runtime.worker import StreamWorker
from edge_tsad.types import Now

__all__ = ["Gateway"]

log = logging.getLogger(__name__)

TICK_S = 0.1
LOOK_EVERY_S = 0.5
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
        load: reads the configuration again, for :meth:`reload`.

    Attributes:
        restart: whether :meth:`run` has ended so that the process may begin anew.

    Raises:
        EdgeTsadError: something does not exist or does not fit; nothing has been started.
    """

    def __init__(
        self,
        config: GatewayConfig,
        clock: Clock | None = None,
        sink: Sink | None = None,
        load: Callable[[], GatewayConfig] | None = None,
    ) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        self.supervisor = Supervisor()
        self.choices = Choices(config.folder / "choices.json", self._feed)
        self.opener = StreamOpener(config, self.choices)
        streams = self.opener.open_all()
        self._topics = Topics(config.site, config.device)
        self.sink = sink or connect(config)
        self.life = Life(self, config.service)
        self.restart = False
        now = self.clock.now()
        self._lock = lock(config.folder)
        try:
            self.outbox = Outbox(config.folder / "outbox.db", bounds(config), now)
        except EdgeTsadError:
            self._lock.close()
            raise
        self.choices.save()
        make_folder(config.folder / "state")
        for folder in (config.folder, *(config.folder / "state").glob("**/")):
            sweep(folder)  # what a writer that was killed has left; the lock keeps out others
        self.workers: list[StreamWorker] = []
        self.intake = Intake(self._show)
        for stream in streams:
            self.add(stream)
        self.snapshots = Snapshots(config.state, self.workers, now)
        self.reloader = Reloader(self, load)
        self.updates = self._new_updates()
        self.delivery = Delivery(self.outbox, self.sink, self._topics.alert)
        self.reception = Reception(config, self.workers, self.outbox, self.delivery, self.sink)
        self._bulletin = Bulletin(
            self.workers, self.sink, self._topics, lambda: gateway_report.status(self),
            config.broker.score_interval_s,
        )  # fmt: skip
        self._started = now
        self._chores_at_s = self._look_at_s = 0.0

    def stop(self) -> None:
        """Make :meth:`run` return soon; may be called from a signal handler."""
        self.intake.end()

    def reload(self) -> None:
        """Read the configuration again soon; may be called from a signal handler.

        Streams that are the same go on as if nothing had been; what is wrong with a new file is
        said, and the old one stays in force.
        """
        self.reloader.asked = True

    def add(self, stream: OpenStream) -> Feed:
        """One more stream, whose feed is not started yet."""
        name = stream.facts.stream
        path = self.config.folder / "state" / f"{name}.npz"
        worker = StreamWorker(stream, self.outbox, path, history(self.config, stream))
        self.workers.append(worker)
        return self.intake.add(worker)

    def remove(self, worker: StreamWorker) -> None:
        """End a stream: what it had delivered is scored, its state and recording are stored."""
        self.intake.stop_one(worker)
        end_s = self.clock.now().monotonic_s + STOP_S
        while not worker.finished and self.clock.now().monotonic_s < end_s:
            self._turn(TICK_S)
        self.intake.remove(worker, self.clock.now())
        self.snapshots.save(worker)
        worker.close(self.clock.now())
        self.workers.remove(worker)
        self._bulletin.forget(worker.facts.stream)

    def forget(self, worker: StreamWorker) -> None:
        """After :meth:`remove`: the stream does not come back."""
        worker.abandon(self.clock.now())
        self.sink.clear(self._topics.state(worker.facts.stream))

    def rewire(self) -> None:
        """After a reload: what speaks for the streams speaks for those that are there now."""
        self.reception = Reception(self.config, self.workers, self.outbox, self.delivery, self.sink)
        self.reception.begin(self.clock.now())
        self.updates.close()
        self.updates = self._new_updates()

    def run(self) -> None:
        """Run until :meth:`stop`, or until every source has ended and all alerts are delivered.

        What cannot be delivered stays in the outbox for the next run. ``errors`` says afterwards
        which streams failed, and ``restart`` that a slot was switched: run anew.
        """
        try:
            self._bulletin.tick(self.clock.now())
            self.reception.begin(self.clock.now())
            self.sink.start()
            self.intake.start()
            self.life.begin()
            while not (self._stopped or all(w.finished for w in self.workers)):
                self._turn(TICK_S)
            if self._stopped:
                self._take_the_rest()
            else:
                self._drain()
        finally:
            self.intake.end()
            self._close()

    @property
    def uptime_s(self) -> float:
        """Time since the start."""
        return self.clock.now().monotonic_s - self._started.monotonic_s

    @property
    def errors(self) -> list[str]:
        """Which streams failed, in words."""
        return self.intake.errors

    @property
    def sources_are_well(self) -> bool:
        """Whether no source's thread has died without a word."""
        return self.intake.is_well

    def writes(self) -> dict[str, Writes]:
        """What went to the storage since the start, by purpose."""
        keepers = [worker.keeper for worker in self.workers if worker.keeper is not None]
        recorded = [Writes(each.history.written, each.history.syncs) for each in keepers]
        return {
            "outbox": self.outbox.writes,
            "state": self.snapshots.writes,
            "history": sum(recorded, Writes()),
            "evidence": sum((worker.evidence.writes for worker in self.workers), Writes()),
        }

    def stats(self) -> dict[str, Any]:
        """What has happened so far and what it cost."""
        return gateway_report.stats(self)

    def _turn(self, wait_s: float) -> None:
        """One round of the loop."""
        arrivals = self.intake.arrivals.take(wait_s)
        now = self.clock.now()
        self.intake.take(arrivals, now)
        if self.reception.answer(now):
            self._bulletin.look(now)
        if not arrivals or now.monotonic_s >= self._chores_at_s:
            self._chores_at_s = now.monotonic_s + TICK_S
            self.intake.advance(now)
            self.sink.tick()
            self._follow_slots(now)
            if now.monotonic_s >= self._look_at_s:
                self._look_at_s = now.monotonic_s + LOOK_EVERY_S
                self.reception.tick(now)
            self._bulletin.tick(now)
            self.snapshots.tick(now)
            self.reloader.tick()
        self.delivery.tick(now)
        self.life.tick(now)

    @property
    def _stopped(self) -> bool:
        return self.intake.arrivals.stop.is_set()

    def _feed(self) -> None:
        """Model files are being timed: that takes longer than a watchdog waits, and is bounded."""
        self.supervisor.alive(self.clock.now().monotonic_s)

    def _show(self, stream: str, batch: Batch) -> None:
        """Samples that a stream was given: what is on trial beside it is given them too."""
        self.updates.take(stream, batch)

    def _new_updates(self) -> Updates:
        return Updates(self.config, self.choices, self.workers, self.sink, self._topics)

    def _follow_slots(self, now: Now) -> None:
        """Stop where a slot was switched: whoever started the gateway starts it anew."""
        self.updates.tick(now)
        if self.updates.switched:
            log.info("a slot was switched; the gateway restarts with the other bundle")
            self.restart = True
            self.stop()

    def _take_the_rest(self) -> None:
        """After a stop: what the sources had already delivered is still scored."""
        self.intake.take_the_rest(self.clock.now())
        self._deliver(
            STOP_S,
            lambda: not (self._uncommitted or (self.sink.connection and self.delivery.waiting)),
        )

    @property
    def _uncommitted(self) -> bool:
        return any(worker.uncommitted for worker in self.workers)

    def _drain(self) -> None:
        """After the end of all sources: deliver what waits, as far as the broker is there."""
        self._bulletin.look(self.clock.now())
        limit_s = self.config.broker.drain_s
        self._deliver(min(CONNECT_S, limit_s), lambda: self.sink.connection or self._stopped)
        self._deliver(
            limit_s, lambda: not (self._uncommitted or self.delivery.waiting) or self._stopped
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
            self.life.tick(now)
            time.sleep(0.02)
            now = self.clock.now()

    def _close(self) -> None:
        """Save, say good-bye and let go."""
        self.life.end()
        self._retry(self.clock.now())
        for worker in self.workers:
            if worker.uncommitted:
                self.errors.append(
                    f"{worker.facts.stream}: {worker.uncommitted} alert(s) could not be stored in"
                    f" the outbox {self.outbox.path} and were not sent."
                )
        self.snapshots.save_all()
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
        saved = self.updates.handovers()
        for worker in self.workers:
            try:
                if worker.facts.stream in saved:
                    worker.hand_over(saved[worker.facts.stream])
            except EdgeTsadError as e:
                log.error("%s: warms up anew: %s", worker.facts.stream, e)
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
