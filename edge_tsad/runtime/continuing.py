"""How a stream goes on after a restart: from its snapshot, from the outbox, from both, or anew."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_tsad.errors import DataError, EdgeTsadError
from edge_tsad.runtime.limits import AlertLimits
from edge_tsad.runtime.opening import OpenStream, TrimmedPolicy
from edge_tsad.runtime.outbox import Outbox
from edge_tsad.runtime.state import Saved, load, read_state, without_prefix
from edge_tsad.runtime.stream import StreamPipeline

__all__ = ["NEVER", "POLICY", "Continuation"]

log = logging.getLogger(__name__)

POLICY = "policy."
NEVER = -(2**63)


class Continuation:
    """The saved states of ``stream``, until its first sample tells which of them it continues.

    The scorer's state is in the snapshot at ``path``; that of the alert was committed to the outbox
    with its last message, and is the newer one after a crash.

    Attributes:
        snapshot: what was saved last, if it is of this bundle and model.
        warm: whether that had its window full.
        facts: what is known of the alert's messages; empty where nothing is.
    """

    def __init__(self, stream: OpenStream, path: Path, outbox: Outbox) -> None:
        self._stream = stream
        saved = load(path)
        committed = read_state(outbox.state(stream.facts.stream), stream.facts.stream)
        self.snapshot = self._usable(saved)
        self.warm = self.snapshot is not None and bool(self.snapshot.facts.get("warm"))
        self._committed = self._usable(committed)
        known = committed or saved  # an outbox that was set aside knows nothing
        told = known is not None and "last_message" in known.facts
        self.facts: Mapping[str, Any] = known.facts if known and told else {}

    def resume(
        self, first_ns: int, limits: AlertLimits, anew: Callable[[], StreamPipeline]
    ) -> tuple[StreamPipeline, int]:
        """The pipeline that takes the sample at ``first_ns``, and the last point it has judged.

        ``limits`` are restored with it; ``anew`` makes a pipeline in its initial state.
        """
        pipeline, judged = anew(), NEVER
        snapshot, committed = self.snapshot, self._committed
        self.snapshot = self._committed = None
        timing = self._stream.facts.timing
        slack_ns = self._stream.lateness_ns + timing.step_ns
        restored = False
        if snapshot and first_ns + slack_ns > (snapshot.facts.get("latest_ns") or 0):
            restored = self._restore(snapshot, pipeline, limits)
            if restored:
                judged = int(snapshot.facts.get("judged", NEVER))
            else:
                pipeline = anew()  # half of a snapshot may be in it
        then = committed.facts.get("judged", 0) if committed else 0
        goes_on = restored or then < first_ns // timing.step_ns
        if (
            committed
            and judged < then
            and goes_on
            and self._restore_policy(committed, then, pipeline, limits)
        ):
            judged = then
        return pipeline, judged

    def _restore(self, snapshot: Saved, pipeline: StreamPipeline, limits: AlertLimits) -> bool:
        """Whether the snapshot could be used."""
        name = self._stream.facts.stream
        try:
            pipeline.restore(snapshot.arrays)
        except (EdgeTsadError, KeyError, ValueError, IndexError) as e:
            log.warning("%s: its saved state is not used: %s", name, e)
            return False
        self._restore_limits(snapshot, limits)
        log.info("%s: goes on from its saved state", name)
        return True

    def _restore_policy(
        self, committed: Saved, judged: int, pipeline: StreamPipeline, limits: AlertLimits
    ) -> bool:
        """The alert's state as it was committed; what it judged then is not judged again."""
        try:
            pipeline.policy.restore(without_prefix(committed.arrays, POLICY))
        except DataError as e:
            log.warning("%s: the state of its alert is not used: %s", self._stream.facts.stream, e)
            return False
        assert isinstance(pipeline.policy, TrimmedPolicy)
        pipeline.policy.seen_until = judged
        self._restore_limits(committed, limits)
        return True

    def _restore_limits(self, saved: Saved, limits: AlertLimits) -> None:
        """The limits as they were with the policy's state; what was on trial had none."""
        if "limits" not in saved.facts:
            return
        try:
            limits.restore(saved.facts["limits"])
        except DataError as e:
            log.info("%s: %s", self._stream.facts.stream, e)

    def _usable(self, saved: Saved | None) -> Saved | None:
        """The saved state if it is of the same bundle and model."""
        if saved is None:
            return None
        mine = (self._stream.facts.digest, self._stream.path)
        return saved if (saved.facts.get("digest"), saved.facts.get("model")) == mine else None
