"""Where a device may be cut off: each durable step is announced before and after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

__all__ = ["Witness", "step", "unwatched"]

Witness: TypeAlias = Callable[[str], None]
"""Is told the name of each point as it is passed; a test makes it fail there."""


def unwatched(point: str) -> None:
    """The witness of real life."""


@contextmanager
def step(witness: Witness, name: str) -> Iterator[None]:
    """A durable step between the points ``before name`` and ``after name``."""
    witness(f"before {name}")
    yield
    witness(f"after {name}")
