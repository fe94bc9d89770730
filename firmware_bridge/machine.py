"""The life of an update as values: which bundle serves, which one is tried, and why.

::

    resting ──→ received → verified → staged → self-tested ──→ trial ──→ committed
      ↑             └──────────┴─────────┴──────────┘ refused      └────→ rolled back
      └── empty, committed, rolled back

Nothing here does I/O. A transition is a new :class:`State`, which the device writes whole before
the slots follow :attr:`State.serving` and :attr:`State.trying`; :mod:`recovery` says what holds
after a crash.

Rules: the floor rises only on commit. A candidate on trial is scored beside the current bundle,
which goes on to serve, and every doubt (another boot, no report, a bound that was not kept, a
damaged file) is decided for the current one. The first bundle of a device has none to be tried
beside and is committed once its self-test passes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from edge_tsad.decode import Json, canonical_json, decode, encode, parse_json
from edge_tsad.errors import BundleError, SignatureError
from edge_tsad.types import Now
from firmware_bridge.records import Entry, Event, Release, Trial

__all__ = ["UNDER_WAY", "Phase", "State"]

Phase = Literal[
    "empty", "received", "verified", "staged", "self-tested", "trial", "committed", "rolled back"
]
UNDER_WAY = ("received", "verified", "staged", "self-tested")
RESTING = ("empty", "committed", "rolled back")
MOST_ENTRIES = 200
MOST_LETTERS = 300


@dataclass(frozen=True, slots=True)
class State:
    """All that the device remembers; written whole at each transition.

    ``current`` is the digest of the bundle that was committed, or chosen by a rollback, last;
    ``transfer`` and ``candidate`` are those of an update under way; ``committed`` are the bundles
    that may be chosen again, the latest commit last.
    """

    phase: Phase = "empty"
    current: str = ""
    transfer: str = ""
    candidate: Release | None = None
    trial: Trial | None = None
    floor: int = 0
    committed: tuple[Release, ...] = ()
    history: tuple[Entry, ...] = ()
    format_version: Literal[1] = 1

    def __post_init__(self) -> None:
        known = {release.digest for release in self.committed}
        if self.current and self.current not in known:
            raise BundleError("current: is none of the committed bundles")
        if (self.phase == "trial") != (self.trial is not None):
            raise BundleError("trial: does not fit the phase")
        if self.phase in ("verified", "staged", "self-tested", "trial") and not self.candidate:
            raise BundleError("candidate: is missing")
        if self.phase in RESTING and (self.candidate or self.transfer):
            raise BundleError("candidate: is there although no update is under way")

    @property
    def serving(self) -> str:
        """Digest of the bundle that the active slot must hold; empty where there is none."""
        return self.current

    @property
    def trying(self) -> str:
        """Digest of the bundle that the trial slot must hold; empty where there is none."""
        return self.candidate.digest if self.phase == "trial" and self.candidate else ""

    @property
    def kept(self) -> set[str]:
        """Digests of the files that must stay in the store."""
        candidate = {self.candidate.digest} if self.candidate else set[str]()
        return {release.digest for release in self.committed} | candidate

    def allows(self, release: Release) -> bool:
        """Whether a bundle is not older than allowed."""
        return release.counter >= self.floor

    def release(self, digest: str) -> Release | None:
        """What is known of a digest."""
        known = (*self.committed, *((self.candidate,) if self.candidate else ()))
        return next((release for release in known if release.digest == digest), None)

    def earlier(self, to: str) -> Release:
        """The committed bundle of a version or digest; where ``to`` is empty, the one before.

        Raises:
            BundleError: there is none, or several.
        """
        if not to:
            digests = [release.digest for release in self.committed]
            before = self.committed[: digests.index(self.current)] if self.current else ()
            allowed = [release for release in before if self.allows(release)]
            if not allowed:
                raise BundleError("no earlier bundle was committed here that may be returned to")
            return allowed[-1]
        known = self.committed
        found = [r for r in known if to in (r.version, r.label) or r.digest.startswith(to)]
        if len(found) != 1:
            there = ", ".join(f"{r.label} ({r.digest[:12]})" for r in known) or "none"
            number = "none of" if not found else "more than one of"
            raise BundleError(f"{to!r} is {number} the bundles committed here: {there}")
        return found[0]

    def settled(self, transfer: str) -> bool:
        """Whether this very file was tried before, with whatever end."""
        ends = ("refused", "committed", "rolled back")
        return any(e.transfer == transfer and e.event in ends for e in self.history)

    def to_json(self) -> bytes:
        """The canonical spelling."""
        table: dict[str, Json] = {
            field.name: encode(getattr(self, field.name)) for field in dataclasses.fields(self)
        }
        return canonical_json(table)

    @classmethod
    def read(cls, data: bytes, where: str) -> State:
        """The state in ``data``.

        Raises:
            BundleError: it is none.
        """
        return decode(cls, parse_json(data, where, BundleError), where, BundleError)

    # Transitions: each gives the state after it, with its line in the history.

    def received(self, transfer: str, now: Now) -> State:
        """A file has arrived whole.

        Raises:
            BundleError: an update is under way already.
        """
        if self.phase == "trial" and self.candidate:
            raise BundleError(
                f"{self.candidate.label} is on trial; confirm it or roll it back before the next"
            )
        self._require(RESTING)
        return self._next("received", None, "", now, phase="received", transfer=transfer)

    def verified(self, release: Release, now: Now) -> State:
        """Its signature, content, counter and channels were accepted."""
        self._require(("received",))
        return self._next("verified", release, "", now, phase="verified", candidate=release)

    def staged(self, now: Now) -> State:
        """It lies in the store."""
        self._require(("verified",))
        return self._next("staged", self.candidate, "", now, phase="staged")

    def self_tested(self, finding: str, now: Now) -> State:
        """Its golden windows passed on this machine; ``finding`` says how."""
        self._require(("staged",))
        return self._next("self-tested", self.candidate, finding, now, phase="self-tested")

    def tried(self, span_s: float, keep: int, now: Now) -> State:
        """It is scored beside the current bundle from now on, for ``span_s`` seconds."""
        self._require(("self-tested",))
        if not self.current:
            return self._commit("it is the first one: there is none to try it beside", keep, now)
        trial = Trial(now.boot_id, now.monotonic_s, now.monotonic_s + span_s)
        reason = f"it is scored beside the active one for {span_s:.0f} s"
        return self._next("trial", self.candidate, reason, now, phase="trial", trial=trial)

    def confirmed(self, reason: str, keep: int, now: Now) -> State:
        """The candidate takes the place of the current one; ``keep`` committed ones are remembered.

        Raises:
            BundleError: none is on trial.
        """
        if self.phase != "trial":
            raise BundleError("no bundle is on trial; there is nothing to confirm")
        return self._commit(reason, keep, now)

    def refused(self, reason: str, now: Now, event: Event = "refused") -> State:
        """An update under way is dropped before it ever served."""
        self._require(UNDER_WAY)
        return self._rest(event, self.candidate, reason, now, "committed")

    def returned(self, reason: str, now: Now) -> State:
        """The trial ends and the current bundle stays."""
        self._require(("trial",))
        return self._rest("rolled back", self.candidate, reason, now, "rolled back")

    def chosen(self, release: Release, reason: str, now: Now) -> State:
        """A bundle once committed here serves again.

        Raises:
            SignatureError: its counter is below the floor.
            BundleError: it was never committed here, or an update is under way.
        """
        self._require(RESTING)
        if release not in self.committed:
            raise BundleError(f"{release.label} was never committed here, or is no longer kept")
        if not self.allows(release):
            raise SignatureError(
                f"{release.label} is older than allowed: its counter is {release.counter}, "
                f"the least accepted here is {self.floor}"
            )
        left = self.release(self.current)
        return dataclasses.replace(
            self._rest("rolled back", left, reason, now, "rolled back"), current=release.digest
        )

    def _require(self, phases: tuple[str, ...]) -> None:
        if self.phase not in phases:
            raise BundleError(f"that cannot follow on {self.phase!r}, which is the phase now")

    def _commit(self, reason: str, keep: int, now: Now) -> State:
        assert self.candidate is not None
        new = self.candidate
        floor = max(self.floor, new.minimum_counter)
        others = [r for r in self.committed if r.digest != new.digest and r.counter >= floor]
        # The one it replaces is the first to be asked for, wherever it stands in the list.
        others.sort(key=lambda release: release.digest == self.current)
        done = self._rest("committed", new, reason, now, "committed", current=new.digest,
                          committed=(*others, new)[-max(keep, 2):])  # fmt: skip
        return dataclasses.replace(done, floor=floor)

    def _rest(
        self,
        event: Event,
        release: Release | None,
        reason: str,
        now: Now,
        phase: Phase,
        **changes: object,
    ) -> State:
        """The state after an update has ended, whichever way."""
        serves = bool(changes.get("current", self.current))
        entry = self._entry(event, release, reason, now, self.transfer)
        return dataclasses.replace(
            self,
            phase=phase if serves else "empty",
            transfer="",
            candidate=None,
            trial=None,
            history=(*self.history, entry)[-MOST_ENTRIES:],
            **changes,  # type: ignore[arg-type]
        )

    def _next(
        self, event: Event, release: Release | None, reason: str, now: Now, **changes: object
    ) -> State:
        """The state after a step of an update."""
        transfer = str(changes.get("transfer", self.transfer))
        entry = self._entry(event, release, reason, now, transfer)
        history = (*self.history, entry)[-MOST_ENTRIES:]
        return dataclasses.replace(self, history=history, **changes)  # type: ignore[arg-type]

    def _entry(
        self, event: Event, release: Release | None, reason: str, now: Now, transfer: str
    ) -> Entry:
        return Entry(
            number=self.history[-1].number + 1 if self.history else 1,
            event=event,
            label=release.label if release else "",
            digest=release.digest if release else "",
            transfer=transfer or (release.transfer if release else ""),
            # Half a surrogate pair, from the name of some file, could not be read back.
            reason=reason[:MOST_LETTERS].encode("utf-8", "replace").decode("utf-8"),
            wall_ns=now.wall_ns,
            synchronised=now.synchronised,
        )
