"""A gateway's side of an update: the one place where states, slot and store change together.

Order of every transition: the state is written, then the slots follow it. A candidate is thus never
tried without a deadline on disk; and when its trial must end and the state cannot be written (a
full disk), its slot is emptied all the same, which the next recovery understands.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_tsad.bundle import parse_bundle
from edge_tsad.errors import BundleError, EdgeTsadError
from edge_tsad.runtime.clock import Clock, SystemClock
from firmware_bridge.folder import Folder
from firmware_bridge.machine import State
from firmware_bridge.points import Witness, unwatched
from firmware_bridge.reception import Reception
from firmware_bridge.records import Release
from firmware_bridge.recovery import Found, recover
from firmware_bridge.selftest import run_self_test
from firmware_bridge.settings import Settings
from firmware_bridge.store import require_transfer
from firmware_bridge.verdict import Verdict, judge

__all__ = ["Device", "Tester"]

Tester = Callable[[Path], str]
"""Tests a stored bundle on this machine; raises EdgeTsadError where it does not pass."""


class Device(Reception):
    """One slot of a gateway.

    Args:
        root: the agent's folder.
        clock: tells the time.
        tester: the self-test.
        witness: is told each durable step.
    """

    def __init__(
        self,
        root: Path,
        clock: Clock | None = None,
        tester: Tester = run_self_test,
        witness: Witness = unwatched,
    ) -> None:
        super().__init__(Folder(root, witness))
        self.clock = clock or SystemClock()
        self._tester = tester

    def recover(self) -> State:
        """Bring the folder into order after whatever happened; returns the state that holds.

        Raises:
            EdgeTsadError: the folder cannot be used, or its state is damaged.
        """
        with self.folder.lock():
            return self._recover()

    def look(self) -> tuple[State, str, str]:
        """The state, the digest in the slot, and what is wrong (empty: nothing).

        Recovers first. Where that is impossible (a read-only file system) nothing is changed and
        what is said is what is there.

        Raises:
            EdgeTsadError: the state is damaged.
        """
        problem = ""
        try:
            state = self.recover()
        except EdgeTsadError as e:
            problem = str(e)
            state = self.folder.load()
        slot = self.folder.slot.read()
        if slot and not self.folder.store.sound(slot):
            problem = "the file of the active bundle is damaged, and no other can take its place"
        elif slot != state.serving and not problem:
            problem = "the active slot does not hold what the state says"
        elif self.folder.trial_slot.read() != state.trying and not problem:
            problem = "the trial slot does not hold what the state says"
        return state, slot, problem

    def verdict(self, state: State) -> Verdict:
        """What the trial of ``state`` has shown so far; nothing where there is none.

        Raises:
            ConfigError: the settings are wrong.
        """
        if state.trial is None:
            return Verdict()
        return judge(self.folder.report(state.trying), state.trial, self.folder.settings())

    def install(self, transfer: str, trial_s: float | None = None) -> State:
        """Verify, stage and self-test the file of ``transfer``, then begin its trial.

        A file that is active or on trial already is left so: a repeated request does no harm.

        Raises:
            EdgeTsadError: it was refused, with the reason; what served before still serves.
        """
        require_transfer(transfer)
        with self.folder.lock():
            state = self._recover()
            there = (state.release(state.serving), state.release(state.trying))
            if any(release and release.transfer == transfer for release in there):
                self.folder.incoming.discard(transfer)
                return state
            if not self.folder.incoming.offset(transfer):
                last = state.history[-1] if state.history else None
                if last and (last.transfer, last.event) == (transfer, "refused"):
                    raise BundleError(last.reason)  # the first answer was lost with its line
                raise BundleError("the bundle has not arrived; send it first")
            state = self._move(state, state.received(transfer, self.clock.now()))
            with self._refusing(transfer):
                return self._bring_up(transfer, trial_s)

    def confirm(self, digest: str = "", reason: str = "it was confirmed") -> State:
        """Commit the bundle on trial; ``digest``, if given, must be its.

        Raises:
            EdgeTsadError: none, or another one, is on trial.
        """
        with self.folder.lock():
            state = self._recover()
            if digest and state.phase != "trial" and state.current == digest:
                return state
            if digest and state.trying != digest:
                release = state.release(state.serving)
                there = release.label if release else "no bundle"
                last = f" ({state.history[-1].reason})" if state.history else ""
                raise BundleError(f"that bundle is not on trial any more; {there} serves{last}")
            keep = self.folder.settings().keep
            state = self._move(state, state.confirmed(reason, keep, self.clock.now()))
            self.folder.sweep(state)
            return state

    def rollback(self, to: str = "", reason: str = "it was asked for") -> State:
        """End a trial, or let a bundle that was committed here before serve again.

        Args:
            to: version or beginning of the digest; empty for the one before.
            reason: goes into the history.

        Raises:
            EdgeTsadError: there is none, or it is below the floor.
        """
        with self.folder.lock():
            state = self._recover()
            trial = state.phase == "trial"
            target = state.earlier(to) if to or not trial else None
            if target is not None:  # refused before anything is changed
                self.folder.store.open(target.digest, self.folder.trusted())
            if trial:
                state = self._move(state, state.returned(reason, self.clock.now()))
            if target is not None and target.digest != state.current:
                state = self._move(state, state.chosen(target, reason, self.clock.now()))
            self.folder.sweep(state)
            return state

    def _bring_up(self, transfer: str, trial_s: float | None) -> State:
        """From received to trial; the caller words and records what goes wrong."""
        folder, now = self.folder, self.clock.now
        settings, state = folder.settings(), folder.load()
        data = folder.incoming.whole(transfer)
        bundle = parse_bundle(data, "the bundle", trusted=folder.trusted())
        if bundle.digest == state.current:
            raise BundleError("the bundle is active already, under other signatures")
        self._require_fit(bundle.manifest, settings, state)
        state = self._move(state, state.verified(Release.of(bundle, transfer), now()))
        folder.store.adopt(folder.incoming.path(transfer), bundle.digest)
        state = self._move(state, state.staged(now()))
        finding = self._tester(folder.store.path(bundle.digest))
        state = self._move(state, state.self_tested(finding, now()))
        span_s = settings.trial_s if trial_s is None else trial_s
        return self._move(state, state.tried(span_s, settings.keep, now()))

    @contextmanager
    def _refusing(self, transfer: str) -> Iterator[None]:
        """Record the reason of a refusal, and free its space first: the disk may be full."""
        try:
            yield
        except EdgeTsadError as e:
            self.folder.incoming.discard(transfer)
            with contextlib.suppress(EdgeTsadError):  # recovery will find it where it stopped
                state = self.folder.load()
                if state.phase == "trial":  # the slot could not be switched
                    state = self._move(state, state.returned(str(e), self.clock.now()))
                else:
                    state = self._move(state, state.refused(str(e), self.clock.now()))
                self.folder.sweep(state)
            raise

    def _recover(self) -> State:
        """As :meth:`recover`, for who holds the lock."""
        folder = self.folder
        state = folder.load()
        # Mistakes in the settings must not hide what serves.
        settings = folder.settings() if state.trial else Settings()

        found = Found(
            trying=folder.trial_slot.read(),
            sound=folder.store.sound,
            judge=lambda: self.verdict(state),
            now=self.clock.now(),
            keep=settings.keep,
        )
        holds = recover(state, found)
        self._move(state, holds)
        folder.sweep(holds)
        return holds

    def _move(self, old: State, new: State) -> State:
        """Write ``new``, then let the slot follow."""
        try:
            if new is not old:
                self.folder.save(new)
        except EdgeTsadError:
            if old.phase == "trial" and new.serving == old.current:
                self.folder.trial_slot.switch("")  # the safe side, whatever else fails
            raise
        self.folder.follow(new)
        return new
