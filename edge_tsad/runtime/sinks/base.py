"""What the gateway needs of the place where messages go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Acknowledgement", "Sink"]


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The broker's answer for an alert: ``refused`` is empty, or why it was not taken."""

    token: int
    refused: str = ""


class Sink(Protocol):
    """A connection that comes and goes by itself; no method waits for the network but ``close``."""

    @property
    def connection(self) -> int:
        """0 while there is none; else a number that grows with every new one."""
        ...

    def start(self) -> None:
        """Begin to connect, in the background."""
        ...

    def tick(self) -> None:
        """To be called often: mends what died in the background."""
        ...

    def deliver(self, topic: str, payload: bytes, token: int) -> bool:
        """Send with an acknowledgement, which :meth:`acknowledgements` will report by ``token``.

        False: there is no connection now. What was sent over a connection that ended without an
        acknowledgement must be delivered again over the next one.
        """
        ...

    def acknowledgements(self) -> list[Acknowledgement]:
        """The answers since the last call."""
        ...

    def retain(self, topic: str, payload: bytes) -> None:
        """Make ``payload`` the last word on ``topic``, now and after every reconnection."""
        ...

    def offer(self, topic: str, payload: bytes) -> None:
        """Send if there is a connection, else forget."""
        ...

    def close(self, farewell: tuple[str, bytes] | None, timeout_s: float) -> None:
        """Retain ``farewell``, wait until it is acknowledged or ``timeout_s`` are over, and end."""
        ...
