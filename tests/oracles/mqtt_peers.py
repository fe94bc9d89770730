"""What tests of the MQTT connection share: a plain subscriber, waiting, and small alerts."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

from paho.mqtt import client as paho

from edge_tsad.runtime.delivery import Delivery
from edge_tsad.types import Now

WILL = ("t/status", b'{"online":false}')


def wait(condition: Callable[[], object], limit_s: float = 15) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def now() -> Now:
    return Now(time.monotonic(), time.time_ns(), "boot")


class Listener:
    """A plain subscriber to everything."""

    def __init__(self, port: int) -> None:
        self.messages: list[tuple[str, bytes, bool]] = []
        self._subscribed = threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.client.on_connect = lambda c, *_: c.subscribe("#", qos=1)
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.on_message = lambda _c, _u, m: self.messages.append(
            (m.topic, m.payload, m.retain)
        )
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self._subscribed.wait(10)

    def payloads(self, topic: str) -> list[bytes]:
        return [payload for where, payload, _ in list(self.messages) if where == topic]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def pump(delivery: Delivery, until: Callable[[], object], limit_s: float = 15) -> None:
    def step() -> object:
        delivery.sink.tick()
        delivery.tick(now())
        return until()

    wait(step, limit_s)


def alert(number: int) -> bytes:
    return json.dumps({"id": "x", "seq": number, "late": False}).encode()
