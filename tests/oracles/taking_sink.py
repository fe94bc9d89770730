"""A sink that is always connected, takes every alert, and acknowledges it when it is asked next."""

from __future__ import annotations

from typing import Any

from edge_tsad.runtime.sinks.base import Acknowledgement


class TakingSink:
    """What it does with an alert is its owner's: :meth:`took`."""

    connection = 1
    proof = "confirmed"

    def __init__(self) -> None:
        self._answers: list[Acknowledgement] = []

    def start(self) -> None: ...
    def repeat(self, prefix: str) -> None: ...
    def reply(self, reply: object) -> None: ...
    def tick(self) -> None: ...
    def retain(self, topic: str, payload: bytes) -> None: ...
    def clear(self, topic: str) -> None: ...
    def offer(self, topic: str, payload: bytes) -> None: ...
    def close(self, farewell: object, timeout_s: float) -> None: ...
    def took(self, topic: str, payload: bytes) -> None: ...

    def deliver(self, topic: str, payload: bytes, token: int) -> bool:
        self.took(topic, payload)
        self._answers.append(Acknowledgement(token))
        return True

    def cleared(self) -> list[Any]:
        return []

    received = cleared

    def acknowledgements(self) -> list[Acknowledgement]:
        answers, self._answers = self._answers, []
        return answers
