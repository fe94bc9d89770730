"""What flashing asks of a way to a gateway."""

from __future__ import annotations

from typing import Any, Protocol

from edge_tsad.errors import TransportError

__all__ = ["LineCutError", "Session", "Transport"]


class LineCutError(TransportError):
    """The line was cut; what the gateway confirmed stays, and another session may go on."""


class Session(Protocol):
    """A conversation with the agent of a gateway."""

    def request(self, name: str, **fields: Any) -> dict[str, Any]:
        """Ask and wait for the answer.

        Raises:
            LineCutError: the line was cut, or nothing came in time.
            EdgeTsadError: the gateway refused, with its reason.
        """

    def close(self) -> None:
        """End the conversation."""


class Transport(Protocol):
    """A gateway that can be spoken with."""

    @property
    def name(self) -> str:
        """What the gateway is called in messages."""

    def open(self) -> Session:
        """Begin a conversation.

        Raises:
            TransportError: the gateway cannot be reached, or has no agent.
        """
