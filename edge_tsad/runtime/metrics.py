"""The gateway's figures: collected once, spelled as Prometheus text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from edge_tsad import __version__
from edge_tsad.runtime.stats import cpu_s, peak_rss_mb, rss_mb, stored_bytes

if TYPE_CHECKING:
    from edge_tsad.runtime.gateway import Gateway
    from edge_tsad.runtime.worker import StreamWorker

__all__ = ["CONTENT_TYPE", "Metric", "as_json", "collect", "exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "edge_tsad_"
MB = 1e6
STATES = ("WARMING_UP", "OK", "PENDING", "FIRING", "ACKED")

Labels = dict[str, str]


@dataclass
class Metric:
    """One figure in base units.

    What only grows, and begins anew at a restart, has a name that ends in ``_total``. ``samples``
    are the values by their labels.
    """

    name: str
    help: str
    samples: list[tuple[Labels, float]] = field(default_factory=list)

    @property
    def kind(self) -> Literal["counter", "gauge"]:
        """As Prometheus calls it."""
        return "counter" if self.name.endswith("_total") else "gauge"

    def add(self, value: float, **labels: str) -> Metric:
        """One more sample; returns this metric."""
        self.samples.append((labels, float(value)))
        return self


def collect(gateway: Gateway) -> list[Metric]:
    """All figures of now."""
    return [*of_process(gateway), *of_outbox(gateway), *of_writes(gateway), *of_streams(gateway)]


def of_process(gateway: Gateway) -> list[Metric]:
    """What the process is and uses."""
    info = Metric("info", "1, labelled with the version")
    return [
        info.add(1, version=__version__),
        one("uptime_seconds", "Time since the start", gateway.uptime_s),
        one("cpu_seconds_total", "Processor time used", cpu_s()),
        one("resident_memory_bytes", "Resident memory", rss_mb() * MB),
        one("peak_resident_memory_bytes", "Highest so far", peak_rss_mb() * MB),
        one("broker_connected", "1 while connected", bool(gateway.sink.connection)),
    ]


def of_outbox(gateway: Gateway) -> list[Metric]:
    """What waits for the broker."""
    counts = gateway.outbox.counts
    return [
        one("outbox_rows", "Messages that are kept", counts.rows),
        one("outbox_bytes", "Bytes of their payloads", counts.bytes),
        one("outbox_pending_rows", "Messages without acknowledgement", counts.pending),
        one("outbox_dropped_rows", "Ever dropped without it", counts.dropped),
    ]


def of_writes(gateway: Gateway) -> list[Metric]:
    """What wears the storage."""
    written = Metric("written_bytes_total", "Bytes given to the storage, by purpose")
    syncs = Metric("syncs_total", "fsync and fdatasync calls, by purpose")
    for purpose, writes in gateway.writes().items():
        written.add(writes.bytes, purpose=purpose)
        syncs.add(writes.syncs, purpose=purpose)
    return [
        written,
        syncs,
        one(
            "stored_bytes_total", "Bytes this process caused to be stored, of whole"
            " pages, as the kernel counts them", stored_bytes(),
        ),
    ]  # fmt: skip


def of_streams(gateway: Gateway) -> list[Metric]:
    """What each stream does."""
    made = {
        name: Metric(name, text)
        for name, text in (
            ("samples_total", "Samples taken"),
            ("late_samples_total", "Readings that came too late"),
            ("rejected_samples_total", "Readings that could not be used"),
            ("scores_total", "Points scored"),
            ("windows_total", "Windows computed by the stream's model"),
            ("window_seconds", "Time a window takes, by quantile"),
            ("alerts_total", "Alert messages, by their type"),
            ("warmup_points", "Points until the first score"),
            ("threshold", "Score at which an alert opens"),
            ("state", "1 for the state that holds"),
            ("health", "1 for each condition that holds"),
            ("recorded_rows_total", "Rows given to the recording"),
            ("recording_dropped_rows_total", "Rows that could not be recorded"),
        )
    }
    for worker in gateway.workers:
        of_stream(made, worker)
    return [metric for metric in made.values() if metric.samples]


def of_stream(made: dict[str, Metric], worker: StreamWorker) -> None:
    """Add the samples of one stream."""
    stream = worker.facts.stream
    latency = worker.stream.backend.latency
    resampler = worker.pipeline.resampler
    figures = {
        "samples_total": worker.samples,
        "late_samples_total": resampler.late,
        "rejected_samples_total": resampler.rejected,
        "scores_total": worker.points,
        "windows_total": latency.count,
        "warmup_points": worker.warmup_remaining,
        "threshold": worker.facts.threshold.value,
    }
    if worker.keeper is not None:
        figures["recorded_rows_total"] = worker.keeper.history.rows
        figures["recording_dropped_rows_total"] = worker.keeper.history.dropped
    for name, value in figures.items():
        made[name].add(value, stream=stream)
    for quantile in (0.5, 0.99):
        if (seconds := latency.quantile_s(quantile)) is not None:
            made["window_seconds"].add(seconds, stream=stream, quantile=str(quantile))
    for kind in ("new", "update", "end"):
        made["alerts_total"].add(worker.announcer.counts[kind], stream=stream, type=kind)
    for state in STATES:
        made["state"].add(worker.process == state, stream=stream, state=state)
    for condition in sorted(worker.all_health()):
        made["health"].add(1, stream=stream, condition=condition)


def one(name: str, text: str, value: float) -> Metric:
    """A metric with a single value."""
    return Metric(name, text).add(value)


def exposition(metrics: Iterable[Metric]) -> bytes:
    """Prometheus' text format, version 0.0.4."""
    lines = []
    for metric in metrics:
        name = PREFIX + metric.name
        lines += [f"# HELP {name} {metric.help}.", f"# TYPE {name} {metric.kind}"]
        for labels, value in metric.samples:
            # JSON's escapes of text are those that the format wants
            pairs = [
                f"{key}={json.dumps(text, ensure_ascii=False)}" for key, text in labels.items()
            ]
            lines.append(f"{name}{'{' + ','.join(pairs) + '}' if pairs else ''} {value!r}")
    return "".join(line + "\n" for line in lines).encode()


def as_json(metrics: Iterable[Metric]) -> dict[str, float]:
    """The figures of the gateway as a whole; those of one label by its values."""
    found: dict[str, float] = {}
    for metric in metrics:
        for labels, value in metric.samples:
            if "stream" not in labels and metric.name != "info":
                found["_".join([metric.name, *labels.values()])] = value
    return found
