"""From the configuration of a stream to all that it runs on, checked before anything runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_tsad.bundle import Bundle
from edge_tsad.config import GatewayConfig, StreamConfig
from edge_tsad.errors import ConfigError, EdgeTsadError
from edge_tsad.registry import SOURCES
from edge_tsad.runtime.alerting import AlertEvent, AlertPolicy
from edge_tsad.runtime.backends.checks import detail_names
from edge_tsad.runtime.choices import Choices
from edge_tsad.runtime.choosing import Choice
from edge_tsad.runtime.health import HealthSettings
from edge_tsad.runtime.limits import LimitSettings
from edge_tsad.runtime.payload import StreamFacts
from edge_tsad.runtime.resampler import Resampler
from edge_tsad.runtime.scorer import StreamScorer
from edge_tsad.runtime.slot import open_served
from edge_tsad.runtime.sources.base import Source
from edge_tsad.runtime.stats import TimedBackend
from edge_tsad.runtime.stream import StreamPipeline
from edge_tsad.runtime.threshold import Budget, Threshold
from edge_tsad.types import NANOSECONDS, PolicySettings, Scores

__all__ = ["OpenStream", "StreamOpener", "TrimmedPolicy"]


class TrimmedPolicy(AlertPolicy):
    """A policy that leaves out the points up to ``seen_until``.

    Its state is committed with every alert, the scorer's is not: after a crash the scorer may come
    to points again that the policy has judged.
    """

    seen_until = -(2**63)

    def extend(self, scores: Scores) -> list[AlertEvent]:
        """As the policy's, of the points that it has not judged."""
        if not len(scores) or int(scores.index[0]) > self.seen_until:
            return super().extend(scores)
        new = scores.index > self.seen_until
        rows: dict[str, Any] = {
            field.name: None if (value := getattr(scores, field.name)) is None else value[new]
            for field in dataclasses.fields(scores)
        }
        return super().extend(Scores(**rows))


@dataclass(frozen=True, slots=True)
class Shared:
    """What all streams of one bundle share."""

    bundle: Bundle
    choice: Choice
    backend: TimedBackend


@dataclass(frozen=True, slots=True)
class OpenStream:
    """A stream that can run: what is known of it, its source and its model.

    ``path`` is the model file in the bundle, ``version`` that of the inference runtime and ``why``
    the reason for these two; ``record`` says that its cells are kept. The threshold in ``facts``
    follows from ``budget`` and ``sensitivity``.
    """

    facts: StreamFacts
    source: Source
    backend: TimedBackend
    path: str
    version: str
    why: str
    policy: PolicySettings
    lateness_ns: int
    health: HealthSettings
    record: bool
    limits: LimitSettings
    budget: Budget
    sensitivity: float

    def tuned(self, sensitivity: float) -> OpenStream:
        """The same with the threshold that follows from another sensitivity.

        Raises:
            ConfigError: ``sensitivity`` is out of bounds.
        """
        threshold = Threshold.from_tail(self.facts.threshold.tail, self.budget, sensitivity)
        facts = dataclasses.replace(self.facts, threshold=threshold)
        return dataclasses.replace(self, facts=facts, sensitivity=sensitivity)

    def pipeline(self) -> StreamPipeline:
        """A pipeline in its initial state."""
        timing, channels = self.facts.timing, self.facts.channels
        threshold = self.facts.threshold
        return StreamPipeline(
            Resampler(timing.step_ns, channels, self.lateness_ns),
            StreamScorer(timing, len(channels), self.backend),
            TrimmedPolicy(threshold.value, threshold.median, self.policy),
        )


class StreamOpener:
    """Opens the streams of a configuration; those of one bundle share a backend.

    Args:
        config: what to open.
        choices: chooses the model files; None does it anew for each bundle and keeps nothing.
        earlier: what it has opened, and has not changed since, is shared with it.
    """

    def __init__(
        self,
        config: GatewayConfig,
        choices: Choices | None = None,
        earlier: StreamOpener | None = None,
    ) -> None:
        self.config = config
        self.choices = choices or Choices()
        self._shared: dict[tuple[str, str, int], Shared] = {}
        self._earlier = earlier._shared if earlier else {}

    def open_all(self) -> list[OpenStream]:
        """Every stream, in the order of the configuration.

        Raises:
            EdgeTsadError: something does not exist or does not fit; the message starts with the key
                path.
        """
        streams = []
        for i, stream in enumerate(self.config.streams):
            try:
                streams.append(self.open(stream))
            except EdgeTsadError as e:
                raise type(e)(f"streams[{i}] ({stream.name}): {e}") from e
        return streams

    def open(self, stream: StreamConfig) -> OpenStream:
        """One stream of the configuration.

        Raises:
            EdgeTsadError: something does not exist or does not fit.
        """
        if not stream.bundle:
            raise ConfigError("bundle: is missing; without one it can only be recorded")
        shared = self._share(stream)
        stream.health.check(shared.bundle.manifest.channels)
        manifest = shared.bundle.manifest
        chosen, why = shared.choice.chosen, shared.choice.why
        tail = next(file.tail for file in manifest.files if file.path == chosen.path)
        budget = self._budget(stream, shared)
        threshold = Threshold.from_tail(tail, budget, stream.sensitivity)
        kind = SOURCES[stream.source.type]
        source: Source = kind(stream.source.options, manifest.channels, manifest.timing)
        return OpenStream(
            facts=StreamFacts(
                site=self.config.site,
                device=self.config.device,
                stream=stream.name,
                timing=manifest.timing,
                channels=manifest.channels,
                threshold=threshold,
                bundle=f"{manifest.name}-{manifest.version}",
                digest=shared.bundle.digest,
                details=detail_names([tensor.name for tensor in manifest.outputs]),
            ),
            source=source,
            backend=shared.backend,
            path=chosen.path,
            version=chosen.version,
            why=why,
            policy=manifest.policy,
            lateness_ns=int(stream.lateness_s * NANOSECONDS),
            health=stream.health,
            record=stream.record,
            limits=self.config.alerts,
            budget=budget,
            sensitivity=stream.sensitivity,
        )

    def _share(self, stream: StreamConfig) -> Shared:
        key = (stream.bundle, stream.backend, stream.threads)
        if key not in self._shared:
            bundle = open_served(Path(stream.bundle))
            known = self._earlier.get(key)
            if known is not None and known.bundle.digest == bundle.digest:
                self._shared[key] = known
                return known
            choice = self.choices.of(bundle, threads=stream.threads, backend=stream.backend or None)
            self._shared[key] = Shared(bundle, choice, TimedBackend(choice.backend))
        return self._shared[key]

    def _budget(self, stream: StreamConfig, shared: Shared) -> Budget:
        """The stream's own budget, or its even part of the gateway's among those without one."""
        timing = shared.bundle.manifest.timing
        if stream.budget:
            return Budget.parse(stream.budget, timing)
        asked = self.config.budget
        whole = Budget.parse(asked, timing) if asked else Budget.usual(timing)
        sharing = sum(1 for each in self.config.streams if each.bundle and not each.budget)
        return dataclasses.replace(whole, openings=whole.openings / sharing)
