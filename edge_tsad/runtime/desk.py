"""Carries out what is asked of the gateway over MQTT: each request is answered once.

What a command changes is stored before it is answered. Commands are off until the configuration
allows each; a retained one is refused, for it would be carried out again with every connection.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from edge_tsad.broker import CommandsConfig
from edge_tsad.decode import shorten
from edge_tsad.errors import ConfigError, DataError
from edge_tsad.runtime.delivery import Delivery
from edge_tsad.runtime.labels import keep_label, label_of
from edge_tsad.runtime.outbox import Outbox
from edge_tsad.runtime.requests import (
    REQUESTS,
    Ack,
    Answer,
    Label,
    Replay,
    Request,
    Sensitivity,
    Silenced,
    name_of,
    read,
)
from edge_tsad.runtime.sinks.base import Incoming, Reply
from edge_tsad.runtime.standing import wall_time
from edge_tsad.runtime.topics import Topics
from edge_tsad.runtime.worker import StreamWorker
from edge_tsad.types import Now

__all__ = ["Desk"]

log = logging.getLogger(__name__)

Result = dict[str, Any]


class RefusedError(Exception):
    """The request is understood and cannot be granted; the message says why."""


class Desk:
    """Answers requests about ``workers``; to be used by the gateway's thread."""

    def __init__(
        self,
        config: CommandsConfig,
        topics: Topics,
        workers: Sequence[StreamWorker],
        outbox: Outbox,
        delivery: Delivery,
    ) -> None:
        self.config = config
        self.topics = topics
        self.outbox = outbox
        self.delivery = delivery
        self._workers = {worker.facts.stream: worker for worker in workers}
        self._steps: dict[type, Callable[..., Result]] = {
            Ack: self._ack,
            Silenced: self._silence,
            Sensitivity: self._sensitivity,
            Label: self._label,
            Replay: self._replay,
        }

    def handle(self, message: Incoming, now: Now) -> Reply | None:
        """The answer to a message; None for one that is no command at all."""
        prefix = self.topics.command("")
        if not message.topic.startswith(prefix):
            return None
        command = message.topic.removeprefix(prefix)
        shown = command if command in REQUESTS else "unknown"
        request = name_of(message.payload)
        try:
            result = self._carry_out(command, message, now)
        except (DataError, RefusedError) as e:
            answer = Answer(shown, request, ok=False, reason=str(e))
        except sqlite3.Error as e:
            why = f"it could not be stored ({e}); try again"
            answer = Answer(shown, request, ok=False, reason=why)
        else:
            answer = Answer(shown, request, ok=True, result=result)
        log.info("command %s: %s", shorten(command), answer.reason or "done")
        usual = self.topics.response(shown)
        where = message.response_topic if may_answer(message, self.topics) else usual
        return Reply(where or usual, answer.to_bytes(), message.correlation)

    def _carry_out(self, command: str, message: Incoming, now: Now) -> Result:
        if message.retained:
            raise RefusedError("a retained command is not carried out; publish it without retain")
        if not may_answer(message, self.topics):
            below = self.topics.response("")
            raise RefusedError(f"the response topic must be below {below}; nothing was done")
        if command not in REQUESTS:
            raise RefusedError(f"there is no such command; there are {', '.join(REQUESTS)}")
        if command not in self.config.allow:
            raise RefusedError(f"it is off; add {command!r} to commands.allow in the configuration")
        asked = read(command, message.payload)
        return self._steps[type(asked)](asked, now)

    def _worker(self, request: Request) -> StreamWorker:
        name = getattr(request, "stream", "")
        worker = self._workers.get(name)
        if worker is None:
            known = ", ".join(self._workers)
            raise RefusedError(f"there is no stream {shorten(name)}; there are {known}")
        return worker

    def _ack(self, request: Ack, now: Now) -> Result:
        worker = self._worker(request)
        alert_id = worker.alert_id
        if not alert_id or (request.id and request.id != alert_id):
            which = f"the alert {shorten(request.id)} is" if request.id else "no alert is"
            raise RefusedError(f"{which} {'not ' if request.id else ''}open")
        if worker.process == "ACKED":
            return {"id": alert_id, "already": True}
        if not worker.acknowledge(now):
            raise RefusedError("the stream has had no sample since the gateway began; try again")
        if worker.announcer.failing:
            raise RefusedError("it is not stored yet; the gateway goes on trying")
        return {"id": alert_id, "already": False}

    def _silence(self, request: Silenced, now: Now) -> Result:
        worker = self._worker(request)
        worker.silence(request.for_s, now)
        silence = worker.standing.silence
        until = None if silence is None else wall_time(silence.until_ns)
        suppresses = [] if silence is None else ["new", "update"]
        return {"silenced_until": until, "suppresses": suppresses}

    def _sensitivity(self, request: Sensitivity, now: Now) -> Result:
        worker = self._worker(request)
        least, most = self.config.sensitivity
        if request.value is not None and not least <= request.value <= most:
            raise RefusedError(f"value: {request.value:g} is not in {least:g}…{most:g}")
        try:
            worker.retune(request.value, now)
        except ConfigError as e:
            raise RefusedError(str(e)) from e
        threshold = worker.facts.threshold
        return {
            "sensitivity": worker.stream.sensitivity,
            "threshold": float(f"{threshold.value:.6g}"),
            "calibration": threshold.state,
        }

    def _label(self, request: Label, now: Now) -> Result:
        stream = self._worker(request).facts.stream
        step_ns = self._workers[stream].facts.timing.step_ns
        label = label_of(
            self.outbox.of_alert(stream, request.id), request.id, request.label, request.note,
            step_ns=step_ns, labelled=wall_time(now.wall_ns),
        )  # fmt: skip
        if label is None:
            raise RefusedError(f"no message of the alert {request.id} of {stream} is kept any more")
        keep_label(self.outbox, stream, label, now)
        return {"id": label.id, "label": label.label, "begin": label.begin, "end": label.end}

    def _replay(self, request: Replay, now: Now) -> Result:
        if request.epoch and request.epoch != self.outbox.epoch:
            raise RefusedError(
                f"the numbers of epoch {shorten(request.epoch)} are gone with their outbox; "
                f"the epoch is {self.outbox.epoch}"
            )
        newest = self.outbox.next_seq - 1
        last = newest if request.to_seq is None else min(request.to_seq, newest)
        count = self.outbox.kept(request.from_seq, last)
        if count:
            self.delivery.replay(request.from_seq, last)
        return {
            "from_seq": request.from_seq,
            "to_seq": last,
            "count": count,
            "gone": max(0, last - request.from_seq + 1) - count,
            "oldest_seq": self.outbox.oldest_seq,
            "epoch": self.outbox.epoch,
        }


def may_answer(message: Incoming, topics: Topics) -> bool:
    """Whether the answer may go where the message wants it.

    Whoever may command must not speak in the gateway's name.
    """
    if not message.response_topic:
        return True
    prefix = topics.response("")
    rest = message.response_topic.removeprefix(prefix)
    return message.response_topic.startswith(prefix) and bool(rest) and not set("+#\0") & set(rest)
