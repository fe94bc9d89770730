"""What a service manager is told: systemd's notification protocol, without its library."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

__all__ = ["Supervisor"]

log = logging.getLogger(__name__)


class Supervisor:
    """Whoever started this process as ``Type=notify``; silent where nobody did.

    Args:
        environment: with ``NOTIFY_SOCKET`` and, for a watchdog, ``WATCHDOG_USEC``.

    Attributes:
        watchdog_s: after so long without :meth:`alive` the process is killed; 0 where it is not
            watched.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # "@" stands for the NUL byte with which an abstract address begins
        self._address = "\0" + address[1:] if address.startswith("@") else address
        mine = environment.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        usec = environment.get("WATCHDOG_USEC", "") if self._address and mine else ""
        self.watchdog_s = int(usec) / 1e6 if usec.isdecimal() else 0.0
        self._fed_s = float("-inf")
        self._deaf = False

    def ready(self, status: str) -> None:
        """The start, or a reload, is over."""
        self._say(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """One line for ``systemctl status``."""
        self._say(f"STATUS={status}")

    def reloading(self) -> None:
        """A reload has begun; :meth:`ready` ends it."""
        self._say(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, why: str) -> None:
        """The end has begun."""
        self._say(f"STOPPING=1\nSTATUS={why}")

    def alive(self, monotonic_s: float) -> None:
        """All goes on; told four times as often as would be needed."""
        if self.watchdog_s and monotonic_s >= self._fed_s + self.watchdog_s / 4:
            self._fed_s = monotonic_s
            self._say("WATCHDOG=1")

    def _say(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.setblocking(False)  # a manager that does not listen holds nobody up
                out.connect(self._address)
                out.send(message.encode())
        except OSError as e:
            if not self._deaf:
                log.warning("the service manager cannot be told %r: %s", message, e)
            self._deaf = True
        else:
            self._deaf = False
