"""What holds after a crash or as time passes, given only what is on disk and what time it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_tsad.types import Now
from firmware_bridge.machine import UNDER_WAY, State
from firmware_bridge.verdict import Verdict

__all__ = ["Found", "recover"]


@dataclass(frozen=True, slots=True)
class Found:
    """What is there when somebody looks.

    ``trying`` is the digest that the trial slot holds (empty where there is none), ``sound`` says
    whether the store has a digest, whole and unaltered, ``judge`` what the trial has shown (asked
    only while there is one); ``keep`` is how many committed bundles are remembered.
    """

    trying: str
    sound: Callable[[str], bool]
    judge: Callable[[], Verdict]
    now: Now
    keep: int


def recover(state: State, found: Found) -> State:
    """The state that holds; ``state`` is as it was written last.

    Returns:
        ``state`` itself where nothing was left half done; the slots may still have to follow it.
    """
    now = found.now
    if state.phase in UNDER_WAY:
        reason = f"it was cut short when it was {state.phase}; nothing was changed"
        state = state.refused(reason, now, "interrupted")
    if state.phase == "trial":
        state = tried(state, found)
    if not state.current or found.sound(state.current):
        return state
    for release in reversed(state.committed):
        if state.allows(release) and found.sound(release.digest):
            return state.chosen(release, "the file of the active bundle is damaged", now)
    return state


def tried(state: State, found: Found) -> State:
    """A trial goes on, ends well or ends badly."""
    assert state.candidate is not None
    assert state.trial is not None
    digest, trial, now = state.candidate.digest, state.trial, found.now
    if found.trying != digest:
        return state.returned("it was cut short before its trial had begun", now)
    if not found.sound(digest):
        return state.returned("its file is damaged", now)
    if not trial.of_this_boot(now):
        return state.returned("the gateway was restarted before it was confirmed", now)
    verdict, over = found.judge(), trial.left_s(now) <= 0
    problem = verdict.problem
    if over and verdict.missing:
        problem = f"it was not confirmed within {trial.span_s:.0f} s: {verdict.missing}"
    if problem:
        return state.returned(problem, now)
    return state.confirmed(verdict.finding, found.keep, now) if over else state
