"""What people have decided about a stream, kept over restarts: its silence and its sensitivity."""

from __future__ import annotations

import dataclasses
import json
import logging
import sqlite3
from dataclasses import dataclass
from datetime import timedelta

from edge_tsad.decode import decode, encode
from edge_tsad.errors import DataError
from edge_tsad.runtime.outbox import Outbox
from edge_tsad.runtime.payload import EPOCH
from edge_tsad.types import NANOSECONDS, Now

__all__ = ["LONGEST_SILENCE_S", "Silence", "Standing", "wall_time"]

log = logging.getLogger(__name__)

LONGEST_SILENCE_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Silence:
    """No alerts until ``until_ns`` (Unix epoch) or until ``until_powered_s`` of powered-on time.

    Whichever comes first: a clock that was set back does not make it last for years.
    """

    until_ns: int
    until_powered_s: float


@dataclass(frozen=True, slots=True)
class Decisions:
    """All that is kept; ``sensitivity`` is None while the configuration's counts."""

    sensitivity: float | None = None
    silence: Silence | None = None


class Standing:
    """The decisions about ``stream``, each stored durably before it counts."""

    def __init__(self, stream: str, outbox: Outbox) -> None:
        self.stream = stream
        self._outbox = outbox
        self._key = f"{stream}/standing"
        self._kept = self._read(outbox.state(self._key))

    @property
    def sensitivity(self) -> float | None:
        """What a command has set; None where the configuration's counts."""
        return self._kept.sensitivity

    @property
    def silence(self) -> Silence | None:
        """The silence that holds."""
        return self._kept.silence

    def set_sensitivity(self, value: float | None, now: Now) -> None:
        """Keep ``value``.

        Raises:
            sqlite3.Error: it could not be stored; nothing has changed.
        """
        self._keep(dataclasses.replace(self._kept, sensitivity=value), now)

    def set_silence(self, for_s: float, now: Now) -> None:
        """Begin a silence of ``for_s`` seconds from now; 0 ends the one that holds.

        Raises:
            sqlite3.Error: it could not be stored; nothing has changed.
        """
        until_ns = now.wall_ns + round(for_s * NANOSECONDS)
        silence = Silence(until_ns, self._outbox.powered_s(now) + for_s) if for_s else None
        self._keep(dataclasses.replace(self._kept, silence=silence), now)

    def advance(self, now: Now) -> None:
        """Let a silence end by itself."""
        silence = self._kept.silence
        if silence is None:
            return
        over = self._outbox.powered_s(now) >= silence.until_powered_s
        if over or (now.synchronised and now.wall_ns >= silence.until_ns):
            ended = dataclasses.replace(self._kept, silence=None)
            self._kept = ended
            try:
                self._keep(ended, now)
            except sqlite3.Error as e:  # what is stored will end in the same way
                log.warning("%s: the end of its silence is not stored: %s", self.stream, e)

    def _keep(self, decisions: Decisions, now: Now) -> None:
        self._outbox.keep(self._key, json.dumps(encode(decisions)).encode(), now)
        self._kept = decisions

    def _read(self, data: bytes | None) -> Decisions:
        try:
            return decode(Decisions, json.loads(data or b"{}"), "", DataError)
        except (ValueError, DataError) as e:
            log.warning("%s: what was decided about it is not used: %s", self.stream, e)
            return Decisions()


def wall_time(wall_ns: int) -> str | None:
    """A time of the wall clock in ISO 8601 (UTC); None for one beyond the calendar."""
    try:
        moment = EPOCH + timedelta(microseconds=wall_ns // 1000)
    except OverflowError:
        return None
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
