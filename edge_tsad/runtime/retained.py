"""What this gateway has made a broker retain, remembered so that it can be cleared.

Streams are renamed and removed, buttons come and go with the configuration; the broker keeps the
last word on each topic for ever.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from edge_tsad.runtime import payload
from edge_tsad.runtime.outbox import Outbox
from edge_tsad.runtime.sinks.base import Sink
from edge_tsad.types import Now

__all__ = ["RetainedTopics"]

log = logging.getLogger(__name__)

KEY = "/retained"


class RetainedTopics:
    """Clears the topics of earlier configurations, and components of devices that are still there.

    Args:
        outbox: remembers over restarts.
        sink: where the messages go.
        states: retained topics of this configuration that others keep up.
        devices: discovery payloads of this configuration, by topic.
    """

    def __init__(
        self,
        outbox: Outbox,
        sink: Sink,
        states: Iterable[str],
        devices: Mapping[str, dict[str, Any]],
    ) -> None:
        self._outbox = outbox
        self._sink = sink
        self._known = self._read()
        self._stored: dict[str, dict[str, str]] = dict(self._known)
        now_there: dict[str, dict[str, str]] = {topic: {} for topic in states} | {
            topic: platforms(each) for topic, each in devices.items()
        }
        self._stale = set(self._known) - set(now_there)
        for topic, components in now_there.items():
            self._known[topic] = {**self._known.get(topic, {}), **components}
        self._devices = {
            topic: with_tombstones(each, self._known[topic]) for topic, each in devices.items()
        }

    def begin(self, now: Now) -> None:
        """Remember, then publish: what is retained unremembered would become a ghost."""
        self._store(now)
        for topic in sorted(self._stale):
            self._sink.clear(topic)
        for topic, each in self._devices.items():
            self._sink.retain(topic, payload.pack(each))

    def tick(self, now: Now) -> None:
        """Forget what the broker has cleared."""
        for topic in self._sink.cleared():
            self._stale.discard(topic)
            self._known.pop(topic, None)
        if self._known != self._stored:
            self._store(now)

    def _store(self, now: Now) -> None:
        if self._known == self._stored:
            return
        try:
            self._outbox.keep(KEY, json.dumps(self._known).encode(), now)
        except sqlite3.Error as e:
            log.warning("which topics are retained is not stored: %s; tried again", e)
        else:
            self._stored = dict(self._known)

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            known = json.loads(self._outbox.state(KEY) or b"{}")
            return {str(topic): dict(components) for topic, components in known.items()}
        except (ValueError, TypeError, AttributeError) as e:
            log.warning("which topics were retained is not known any more: %s", e)
            return {}


def platforms(device: Mapping[str, Any]) -> dict[str, str]:
    """The components of a discovery payload and their platforms."""
    return {name: each["platform"] for name, each in device["components"].items()}


def with_tombstones(device: dict[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """The payload with all components that were ever there; one with a platform alone is gone."""
    gone = {
        name: {"platform": platform}
        for name, platform in known.items()
        if name not in device["components"]
    }
    return {**device, "components": {**device["components"], **gone}}
