"""The one place where the runtime reads clocks; everything behind it is given a :class:`Now`."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Protocol

from edge_tsad.types import Now

__all__ = ["Clock", "SystemClock"]

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
TIME_ERROR = 5
TIMEX_BYTES = 512  # more than sizeof(struct timex) on every Linux


class Clock(Protocol):
    """Whatever can say what time it is."""

    def now(self) -> Now:
        """The time now."""
        ...


class SystemClock:
    """The machine's clocks; whether its wall clock is synchronised is asked once a minute."""

    def __init__(self) -> None:
        self._boot_id = BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""
        self._synchronised = kernel_is_synchronised()
        self._ask_again_s = time.monotonic() + 60

    def now(self) -> Now:
        """The time now."""
        monotonic_s = time.monotonic()
        if monotonic_s >= self._ask_again_s:
            self._synchronised = kernel_is_synchronised()
            self._ask_again_s = monotonic_s + 60
        return Now(monotonic_s, time.time_ns(), self._boot_id, self._synchronised)


def kernel_is_synchronised() -> bool:
    """Whether the kernel's clock discipline says that something keeps the wall clock right.

    ``adjtimex`` with no mode only reads; where the C library has none, the answer is no.
    """
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError):
        return False
    state = int(adjtimex(ctypes.create_string_buffer(TIMEX_BYTES)))
    return 0 <= state < TIME_ERROR
