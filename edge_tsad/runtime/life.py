"""The gateway as a service: watched, measured, and begun anew before it grows too large."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from edge_tsad.config import ServiceConfig
from edge_tsad.runtime.metrics import Metric, collect, exposition
from edge_tsad.runtime.metrics_server import MetricsServer
from edge_tsad.runtime.stats import rss_mb
from edge_tsad.types import Now

if TYPE_CHECKING:
    from edge_tsad.runtime.gateway import Gateway

__all__ = ["Life"]

log = logging.getLogger(__name__)

LOOK_EVERY_S = 10.0
LEAST_UPTIME_S = 600.0  # a limit below what it needs shall not become a circle of restarts


class Life:
    """Tells the service manager of ``gateway`` and keeps its figures.

    The watchdog is fed by the thread that scores, stores and sends, once it has come round, and
    only while every source that has not ended still has its own thread. A sensor that is silent is
    no hang: the loop goes round without it. A model that never answers stops the loop, and with it
    the feeding.

    Raises:
        ConfigError: the port for the metrics cannot be used.
    """

    def __init__(self, gateway: Gateway, settings: ServiceConfig) -> None:
        self._gateway, self._settings = gateway, settings
        self.supervisor = gateway.supervisor
        self.figures: list[Metric] = []
        self._server = MetricsServer(settings.metrics_port) if settings.metrics_port else None
        self._look_at_s = 0.0

    def begin(self) -> None:
        """Everything has started."""
        self.supervisor.ready(self._summary())

    def tick(self, now: Now) -> None:
        """The loop has come round."""
        if self.supervisor.watchdog_s and self._gateway.sources_are_well:
            self.supervisor.alive(now.monotonic_s)
        if now.monotonic_s < self._look_at_s:
            return
        self._look_at_s = now.monotonic_s + LOOK_EVERY_S
        self.figures = collect(self._gateway)
        if self._server is not None:
            self._server.page = exposition(self.figures)
        self.supervisor.status(self._summary())
        self._watch_memory()

    def end(self) -> None:
        """The end has begun."""
        if self._gateway.restart:  # the same process goes on: to its manager that is a reload
            self.supervisor.reloading()
            self.supervisor.status("beginning anew")
        else:
            self.supervisor.stopping("stopping")
        if self._server is not None:
            self._server.close()

    def _watch_memory(self) -> None:
        """A restart of our own choice, with all state saved, is better than the kernel's."""
        limit_mb = self._settings.max_rss_mb
        used_mb = rss_mb()
        too_much = limit_mb and used_mb > limit_mb and not self._gateway.restart
        if too_much and self._gateway.uptime_s >= LEAST_UPTIME_S:
            log.warning(
                "memory has grown to %.0f MB, more than service.max_rss_mb = %g: the gateway saves"
                " its state and begins anew", used_mb, limit_mb,
            )  # fmt: skip
            self._gateway.restart = True
            self._gateway.stop()

    def _summary(self) -> str:
        """One line for a person."""
        workers = self._gateway.workers
        states = [f"{worker.facts.stream} {worker.process}" for worker in workers[:8]]
        more = f" and {len(workers) - 8} more" if len(workers) > 8 else ""
        waiting = self._gateway.outbox.counts.pending
        broker = "connected" if self._gateway.sink.connection else "no broker"
        return f"{', '.join(states)}{more}; {broker}; {waiting} alert(s) waiting"
