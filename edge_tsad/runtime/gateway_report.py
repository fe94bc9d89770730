"""What the gateway says of itself as a whole: its retained status and the figures of a run."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from edge_tsad import __version__
from edge_tsad.runtime.metrics import as_json
from edge_tsad.runtime.stats import Writes, cpu_s, peak_rss_mb

if TYPE_CHECKING:
    from edge_tsad.runtime.gateway import Gateway

__all__ = ["stats", "status"]

HOUR_S = 3600.0
DAY_S = 86_400.0


def status(gateway: Gateway) -> dict[str, Any]:
    """The message for ``status``."""
    return {
        "online": True,
        "version": __version__,
        "protocol": gateway.config.broker.protocol,
        "streams": [worker.facts.stream for worker in gateway.workers],
        "outbox": outbox(gateway),
        "refused": gateway.delivery.refused or None,
        "proof": gateway.sink.proof,
        "commands": list(gateway.config.commands.allow),
        "not_reloaded": gateway.reloader.problem or None,
        "writes": writes(gateway),
        "figures": as_json(gateway.life.figures),
    }


def stats(gateway: Gateway) -> dict[str, Any]:
    """What has happened so far and what it cost."""
    return {
        "version": __version__,
        "duration_s": round(gateway.uptime_s, 3),
        "cpu_s": round(cpu_s(), 3),
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "streams": {worker.facts.stream: worker.stats() for worker in gateway.workers},
        "outbox": outbox(gateway),
        "writes": writes(gateway),
    }


def outbox(gateway: Gateway) -> dict[str, Any]:
    """What the queue holds."""
    box = gateway.outbox
    return {
        **dataclasses.asdict(box.counts),
        "epoch": box.epoch,
        "next_seq": box.next_seq,
        "set_aside": box.set_aside and box.set_aside.name,
    }


def writes(gateway: Gateway) -> dict[str, Any]:
    """What was written so far, and what a day of the same would write."""
    total = sum(gateway.writes().values(), Writes())
    days = max(gateway.uptime_s, HOUR_S) / DAY_S
    return {
        "bytes": total.bytes,
        "syncs": total.syncs,
        "bytes_per_day": round(total.bytes / days),
        "syncs_per_day": round(total.syncs / days),
    }
