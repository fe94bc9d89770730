"""What holds after a crash, given only what is on disk and what time it is."""

from __future__ import annotations

from collections.abc import Callable

from edge_tsad.types import Now
from firmware_bridge.machine import UNDER_WAY, State

__all__ = ["recover"]


def recover(state: State, slot: str, sound: Callable[[str], bool], now: Now) -> State:
    """The state that holds, given what was found on disk.

    Args:
        state: as it was written last.
        slot: digest that the active slot holds; empty where there is none.
        sound: whether the store has a digest, whole and unaltered.
        now: the time.

    Returns:
        ``state`` itself where nothing was left half done; the slot may still have to follow it.
    """
    if state.phase in UNDER_WAY:
        reason = f"it was cut short when it was {state.phase}; nothing was changed"
        state = state.refused(reason, now, "interrupted")
    if state.phase == "trial" and state.candidate and state.trial:
        problem = state.trial.over(now)
        if slot != state.candidate.digest:
            problem = problem or "it was cut short before the slot was switched"
        elif not sound(slot):
            problem = "its file is damaged"
        if not problem:
            return state
        state = state.returned(problem, now)
    if not state.current or sound(state.current):
        return state
    for release in reversed(state.committed):
        if state.allows(release) and sound(release.digest):
            return state.chosen(release, "the file of the active bundle is damaged", now)
    return state
