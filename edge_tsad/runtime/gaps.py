"""Which alerts a consumer has missed, told by their numbers, and asked for at the gateway."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_tsad.errors import DataError
from edge_tsad.files import read_limited, write_atomically

__all__ = ["Gaps"]

log = logging.getLogger(__name__)

GRACE_S = 2.0  # numbers that overtook each other fill their gap themselves
ANSWER_S = 10.0
ARRIVAL_S = 30.0
AGAIN_S = 60.0
MOST_ATTEMPTS = 10
MOST_AHEAD = 10_000
LARGEST_FILE = 1 << 24

Ask = Callable[[str, dict[str, Any]], None]
"""Sends a request to ``cmd/replay`` of the gateway ``site/device``."""


@dataclass(slots=True)
class Known:
    """What is known of a gateway's numbers: all up to ``seq`` have come, and those ``ahead``."""

    epoch: str
    seq: int
    ahead: set[int] = field(default_factory=set)
    since_s: float = math.inf
    attempts: int = 0
    request: str = ""
    until_s: float = -math.inf
    promised: bool = False


class Gaps:
    """Follows the sequence numbers of every gateway.

    A gap that stays open for two seconds is asked for; one that cannot be filled is said once and
    left. What is known is kept in the file ``path``, if one is given, so that a gap between two
    runs is found too.

    Args:
        name: begins the names of the requests.
        ask: sends one.
        path: where the numbers are kept; its folder is made.
    """

    def __init__(self, name: str, ask: Ask, path: Path | None = None) -> None:
        self.name = name
        self.path = path
        self._ask = ask
        self._requests = 0
        self._known = {} if path is None else load(path)
        self._saved: str = self._text()

    def note(self, alert: dict[str, Any], now_s: float) -> None:
        """An alert was shown."""
        gateway = f"{alert.get('site')}/{alert.get('device')}"
        epoch, seq = str(alert.get("epoch", "")), int(alert["seq"])
        known = self._known.get(gateway)
        if known is None or known.epoch != epoch:
            if known is not None:
                log.warning(
                    "%s has begun a new outbox; alerts that were numbered after %d in the old one "
                    "cannot be asked for", gateway, known.seq,
                )  # fmt: skip
            self._known[gateway] = Known(epoch, seq)
            return
        if seq <= known.seq:
            return
        known.ahead.add(seq)
        self._close(known)
        if known.ahead and known.since_s == math.inf:
            known.since_s = now_s
        if len(known.ahead) > MOST_AHEAD:
            self._leave(gateway, known, "too many alerts came after it")

    def answered(self, gateway: str, answer: dict[str, Any], now_s: float) -> None:
        """A gateway answered a request of somebody."""
        known = self._known.get(gateway)
        if known is None or not known.request or answer.get("request") != known.request:
            return
        if not answer.get("ok"):
            self._leave(gateway, known, str(answer.get("reason")))
            return
        result = answer.get("result") or {}
        gone = int(result.get("gone", 0))
        if gone:
            log.warning("%s: %d of the missing alerts are gone from its outbox", gateway, gone)
        if not result.get("count"):
            self._skip(known)
        else:
            known.promised, known.until_s = True, now_s + ARRIVAL_S

    def tick(self, now_s: float) -> None:
        """Ask for what is missing, and see which requests came to nothing."""
        for gateway, known in self._known.items():
            if not known.ahead:
                continue
            if known.request and now_s >= known.until_s:
                self._missed(gateway, known, now_s)
            elif not known.request and now_s >= max(known.since_s + GRACE_S, known.until_s):
                self._request(gateway, known, now_s)

    def reconnected(self) -> None:
        """The answers to requests of the connection before may be lost: ask again."""
        for known in self._known.values():
            known.request, known.promised = "", False

    def save(self) -> None:
        """Keep what is known; said once in the log if it cannot be."""
        text = self._text()
        if self.path is None or text == self._saved:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, text.encode(), DataError)
        except (OSError, DataError) as e:
            log.warning("a gap between this run and the next will not be noticed: %s", e)
            self.path = None
        self._saved = text

    def _request(self, gateway: str, known: Known, now_s: float) -> None:
        self._requests += 1
        known.attempts += 1
        known.request = f"{self.name}-{self._requests}"[-64:]
        known.until_s = now_s + ANSWER_S
        first, last = known.seq + 1, min(known.ahead) - 1
        if known.attempts == 1:
            log.warning("%s: alerts %d to %d are missing and asked for", gateway, first, last)
        self._ask(
            gateway,
            {"from_seq": first, "to_seq": last, "epoch": known.epoch, "request": known.request},
        )

    def _missed(self, gateway: str, known: Known, now_s: float) -> None:
        known.request = ""
        if known.promised or known.attempts >= MOST_ATTEMPTS:
            self._leave(gateway, known, "they did not come")
            return
        if known.attempts == 1:
            log.warning(
                "%s does not answer cmd/replay: is replay in its commands.allow, and may this "
                "user publish there? It is asked again", gateway,
            )  # fmt: skip
        known.until_s = now_s + AGAIN_S

    def _leave(self, gateway: str, known: Known, why: str) -> None:
        log.warning(
            "%s: the alerts %d to %d cannot be had: %s",
            gateway, known.seq + 1, min(known.ahead) - 1, why,
        )  # fmt: skip
        self._skip(known)

    def _skip(self, known: Known) -> None:
        """Go on behind the first gap."""
        known.seq = min(known.ahead) - 1
        self._close(known)

    def _close(self, known: Known) -> None:
        """Take in the numbers that follow without a gap."""
        begin = known.seq
        while known.seq + 1 in known.ahead:
            known.seq += 1
            known.ahead.discard(known.seq)
        if known.seq > begin:
            known.since_s = -math.inf if known.ahead else math.inf
            known.attempts, known.request, known.promised = 0, "", False
            known.until_s = -math.inf

    def _text(self) -> str:
        return json.dumps(
            {
                gateway: {"epoch": known.epoch, "seq": known.seq, "ahead": sorted(known.ahead)}
                for gateway, known in self._known.items()
            }
        )


def load(path: Path) -> dict[str, Known]:
    """What an earlier run knew; nothing, said in the log, where that is damaged."""
    if not path.exists():
        return {}
    try:
        table = json.loads(read_limited(path, LARGEST_FILE, DataError))
        return {
            str(gateway): Known(
                str(each["epoch"]), int(each["seq"]), {int(n) for n in each["ahead"]}, -math.inf
            )
            for gateway, each in table.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, DataError) as e:
        log.warning("%s is not used: %s", path, e)
        return {}
