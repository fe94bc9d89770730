"""What the gateway needs of the place where messages go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["Acknowledgement", "Incoming", "Proof", "Reply", "Sink"]

Proof = Literal["confirmed", "proven", "unproven", "waiting"]
"""How a sink knows that what it publishes is taken; see :attr:`Sink.proof`."""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The broker's answer for an alert: ``refused`` is empty, or why it was not taken."""

    token: int
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message for the gateway; ``response_topic`` and ``correlation`` are MQTT 5's."""

    topic: str
    payload: bytes
    retained: bool = False
    response_topic: str = ""
    correlation: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to a message."""

    topic: str
    payload: bytes
    correlation: bytes = b""


class Sink(Protocol):
    """A connection that comes and goes by itself; no method waits for the network but ``close``."""

    @property
    def connection(self) -> int:
        """0 while there is none; else a number that grows with every new one."""
        ...

    @property
    def proof(self) -> Proof:
        """What an acknowledgement of this connection means.

        ``confirmed``: it says whether the message was taken. ``proven``: it does not, but a probe
        was read back. ``unproven``: nor was a probe; ``waiting``: for it, or for a connection.
        """
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

    def clear(self, topic: str) -> None:
        """Make nothing the last word on ``topic``; :meth:`cleared` tells when it is so."""
        ...

    def cleared(self) -> list[str]:
        """The topics that were cleared since the last call."""
        ...

    def repeat(self, prefix: str) -> None:
        """Say again what is retained on topics that begin with ``prefix``."""
        ...

    def received(self) -> list[Incoming]:
        """The messages that have come since the last call."""
        ...

    def reply(self, reply: Reply) -> None:
        """Send an answer, again over the next connection until one acknowledges it."""
        ...

    def offer(self, topic: str, payload: bytes) -> None:
        """Send if there is a connection, else forget."""
        ...

    def close(self, farewell: tuple[str, bytes] | None, timeout_s: float) -> None:
        """Retain ``farewell``, wait until it is acknowledged or ``timeout_s`` are over, and end."""
        ...
