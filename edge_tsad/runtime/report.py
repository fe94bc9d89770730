"""What a stream says of itself: its retained state and the figures of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_tsad.runtime import payload
from edge_tsad.runtime.standing import wall_time

if TYPE_CHECKING:
    from edge_tsad.runtime.worker import StreamWorker

__all__ = ["describe", "score", "stats"]


def describe(worker: StreamWorker) -> dict[str, Any]:
    """The message for ``state/<stream>``."""
    left = worker.warmup_remaining
    timing = worker.facts.timing
    silence = worker.standing.silence
    return {
        "process": worker.process,
        "alert_id": worker.alert_id or None,
        "warmup_points": left,
        "warmup_s": left * timing.step_ns / 1e9 if timing.has_rate else None,
        "silenced_until": None if silence is None else wall_time(silence.until_ns),
        "suppressed": None if silence is None else dict(worker.announcer.suppressed),
        "sensitivity": worker.stream.sensitivity,
        "health": sorted(worker.all_health()),
        "conditions": worker.reporter.describe(),
        "threshold": payload.rounded(worker.facts.threshold.value),
        "calibration": payload.calibration(worker.facts),
        "bundle": worker.facts.bundle,
        "digest": worker.facts.digest,
        "backend": f"{worker.stream.backend.name} {worker.stream.version}",
        "model": worker.stream.path,
    }


def score(worker: StreamWorker) -> dict[str, Any] | None:
    """The message for ``score/<stream>``; None where no score has come since the last one."""
    if worker.latest is None:
        return None
    index = int(worker.latest.index[-1])
    return {
        "time": payload.iso(worker.facts.timing, index),
        "index": index,
        "score": payload.rounded(float(worker.latest.score[-1])),
        "highest": payload.rounded(worker.highest),
        "threshold": payload.rounded(worker.facts.threshold.value),
    }


def stats(worker: StreamWorker) -> dict[str, Any]:
    """What the stream has done and what its model cost (shared by the streams of a bundle)."""
    latency = worker.stream.backend.latency
    quantiles = {"p50": latency.quantile_s(0.5), "p99": latency.quantile_s(0.99)}
    history = None if worker.keeper is None else worker.keeper.history
    return {
        "samples": worker.samples,
        "points_scored": worker.points,
        "windows": latency.count,
        "latency_ms": {name: s and round(s * 1e3, 4) for name, s in quantiles.items()},
        "alerts": dict(worker.announcer.counts),
        "late": worker.pipeline.resampler.late,
        "rejected": worker.pipeline.resampler.rejected,
        "complaints": dict(worker.stream.source.complaints.counts),
        "recorded": None
        if history is None
        else {
            "rows": history.rows,
            "dropped": history.dropped,
            "bytes": history.size,
            "written": history.written,
            "syncs": history.syncs,
        },
        "backend": worker.stream.backend.name,
        "backend_version": worker.stream.version,
        "model": worker.stream.path,
        "model_reason": worker.stream.why,
    }
