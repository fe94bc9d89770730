"""Another configuration for a gateway that goes on: what did not change keeps its state."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_tsad.config import GatewayConfig
from edge_tsad.errors import ConfigError, EdgeTsadError
from edge_tsad.runtime.opening import OpenStream, StreamOpener

if TYPE_CHECKING:
    from edge_tsad.runtime.gateway import Gateway
    from edge_tsad.runtime.worker import StreamWorker

__all__ = ["Reloader"]

log = logging.getLogger(__name__)

RELOADABLE = ("streams", "budget")


class Reloader:
    """Reloads the configuration of ``gateway`` with ``load``; called by the gateway's thread.

    Attributes:
        asked: to be set when the next :meth:`tick` shall reload.
        problem: why the last reload was not done; empty where it was.
    """

    def __init__(self, gateway: Gateway, load: Callable[[], GatewayConfig] | None) -> None:
        self._gateway, self._load = gateway, load
        self.asked = False
        self.problem = ""

    def tick(self) -> None:
        """Reload if that was asked for."""
        if not self.asked or self._load is None:
            return
        self.asked = False
        self._gateway.life.supervisor.reloading()
        try:
            config = self._load()
            check_unchanged(self._gateway.config, config)
            opener = StreamOpener(config, self._gateway.choices, self._gateway.opener)
            streams = opener.open_all()
        except EdgeTsadError as e:
            self.problem = str(e)
            log.error("the configuration is not reloaded, the one before goes on: %s", e)
        else:
            self.problem = ""
            self._change(config, streams)
            self._gateway.opener = opener
            self._gateway.choices.save()
        self._gateway.life.begin()

    def _change(self, config: GatewayConfig, streams: list[OpenStream]) -> None:
        """Remove, keep and add streams, in this order; then in the order of the file."""
        gateway = self._gateway
        before = {stream.name: stream for stream in gateway.config.streams}
        wanted = {
            stream.facts.stream: (each, stream)
            for each, stream in zip(config.streams, streams, strict=True)
        }
        for worker in list(gateway.workers):
            name = worker.facts.stream
            each, stream = wanted.get(name, (None, None))
            if stream is not None and each == before[name] and same(worker, stream):
                worker.rebudget(stream)
                continue
            gateway.remove(worker)
            if stream is None:
                gateway.forget(worker)
        gateway.config = config
        there = {worker.facts.stream for worker in gateway.workers}
        for name, (_, stream) in wanted.items():
            if name not in there:
                self._add(stream)
        order = list(wanted)
        gateway.workers.sort(key=lambda worker: order.index(worker.facts.stream))
        gateway.rewire()
        log.warning("the configuration was reloaded: %d stream(s)", len(order))

    def _add(self, stream: OpenStream) -> None:
        try:
            self._gateway.add(stream).start()
        except EdgeTsadError as e:
            self.problem = f"{stream.facts.stream}: {e}"
            log.error("%s: does not begin: %s", stream.facts.stream, e)


def same(worker: StreamWorker, stream: OpenStream) -> bool:
    """Whether the worker runs the bundle and model that the stream would."""
    runs, would = worker.stream, stream
    return (runs.facts.digest, runs.path) == (would.facts.digest, would.path)


def check_unchanged(old: GatewayConfig, new: GatewayConfig) -> None:
    """Refuse a change of what cannot change while the gateway runs.

    Raises:
        ConfigError: with the key.
    """
    for field in dataclasses.fields(GatewayConfig):
        if field.name not in RELOADABLE and getattr(old, field.name) != getattr(new, field.name):
            raise ConfigError(f"{field.name}: cannot change while the gateway runs; restart it")
