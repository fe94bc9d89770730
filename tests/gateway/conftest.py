"""A gateway process with a broker, and peers of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Mosquitto
from oracles.gateway_rig import OWN, Peer, Rig
from oracles.mqtt_peers import WILL, Listener, now

from edge_tsad.broker import BrokerConfig
from edge_tsad.runtime.outbox import Bounds, Outbox
from edge_tsad.runtime.sinks import link
from edge_tsad.runtime.sinks.mqtt import MqttSink


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


@pytest.fixture
def listen() -> Iterator[Callable[[int], Listener]]:
    made: list[Listener] = []

    def make(port: int) -> Listener:
        made.append(Listener(port))
        return made[-1]

    yield make
    for listener in made:
        listener.close()


@pytest.fixture
def sinks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., MqttSink]]:
    """Makes started sinks that retry quickly, and closes them."""
    monkeypatch.setattr(link, "FIRST_DELAY_S", 0.05)
    monkeypatch.setattr(link, "LONGEST_DELAY_S", 0.2)
    made: list[MqttSink] = []

    def make(config: BrokerConfig) -> MqttSink:
        sink = MqttSink(config, "sink", WILL)
        made.append(sink)
        sink.start()
        return sink

    yield make
    for sink in made:
        sink.close(None, 3)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path / "outbox.db", Bounds(), now())
    yield box
    box.close()
