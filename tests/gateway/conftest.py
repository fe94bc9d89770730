"""A gateway process with a broker, and peers of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Mosquitto
from oracles.gateway_rig import OWN, Peer, Rig


@pytest.fixture
def rig(tmp_path: Path, stopped_mosquitto: Mosquitto) -> Iterator[Rig]:
    """The gateway plant/gw, which is not running yet, as its broker is not."""
    made = Rig(tmp_path, stopped_mosquitto)
    yield made
    made.kill()


@pytest.fixture
def peers() -> Iterator[Callable[..., Peer]]:
    """Makes clients and closes them."""
    made: list[Peer] = []

    def make(port: int, *filters: str, **options: Any) -> Peer:
        made.append(Peer(port, *(filters or (f"{OWN}/#",)), **options))
        return made[-1]

    yield make
    for peer in made:
        peer.close()
