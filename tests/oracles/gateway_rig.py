"""A gateway as a process with a real broker: fed line by line, asked over MQTT, watched."""

from __future__ import annotations

import json
import queue
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import Mosquitto
from oracles import tiny_bundle
from paho.mqtt import client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

START = 1_800_000_000
QUIET = [0.5] * 20
SPIKE = [20.0] * 6
OWN = "edge-tsad/plant/gw"


def wait_for(condition: Callable[[], object], limit_s: float = 20) -> Any:
    end = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


class Peer:
    """Another MQTT client, which keeps every message of its filters."""

    def __init__(
        self, port: int, *filters: str, username: str = "", password: str = "",
        version: int = paho.MQTTv5, context: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self.messages: list[paho.MQTTMessage] = []
        self.answers: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=version)
        if username:
            self.client.username_pw_set(username, password)
        if context is not None:
            self.client.tls_set_context(context)
        subscribed: queue.Queue[bool] = queue.Queue()
        wanted = [(each, 1) for each in filters]
        self.client.on_connect = lambda c, *_: c.subscribe(wanted)
        self.client.on_subscribe = lambda *_: subscribed.put(True)
        self.client.on_message = self._on_message
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert subscribed.get(timeout=10)

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        if message.topic.startswith(f"{OWN}/response/"):
            self.answers.put(message)
        else:
            self.messages.append(message)

    def send(self, topic: str, body: object, *, retain: bool = False, **properties: Any) -> None:
        """Publish; ``properties`` are MQTT 5's."""
        given = None
        if properties:
            given = Properties(PacketTypes.PUBLISH)
            for name, value in properties.items():
                setattr(given, name, value)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = self.client.publish(topic, data, qos=1, retain=retain, properties=given)
        sent.wait_for_publish(10)

    def ask(self, command: str, body: object, **properties: Any) -> dict[str, Any]:
        """The answer to a command."""
        self.send(f"{OWN}/cmd/{command}", body, **properties)
        return self.answer()[1]

    def answer(self, limit_s: float = 10) -> tuple[paho.MQTTMessage, dict[str, Any]]:
        message = self.answers.get(timeout=limit_s)
        return message, json.loads(message.payload)

    def bodies(self, topic: str) -> list[Any]:
        """What came on ``topic``, decoded; None for an empty message."""
        return [
            json.loads(message.payload) if message.payload else None
            for message in list(self.messages)
            if message.topic == topic
        ]

    def forget(self, topic: str) -> None:
        """Leave out what has come on ``topic`` so far."""
        self.messages = [message for message in self.messages if message.topic != topic]

    def last(self, topic: str) -> Any:
        found = self.bodies(topic)
        return found[-1] if found else None

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Rig:
    """The gateway plant/gw with the stream pump, which reads its standard input."""

    def __init__(self, folder: Path, broker: Mosquitto) -> None:
        self.folder, self.broker = folder, broker
        self.process: subprocess.Popen[str] | None = None
        self.second = START
        self.log = folder / "gateway.log"
        tiny_bundle.make(folder / "tiny.tsad")

    def start(
        self, extra: str = "", *, broker: str = "", streams: str = "", options: tuple[str, ...] = ()
    ) -> None:
        """Start it with more tables, more keys of the broker, and more streams."""
        url = "" if "url =" in broker else f'url = "{self.broker.url}"\n'
        (self.folder / "gateway.toml").write_text(
            f'site = "plant"\ndevice = "gw"\ndata_dir = "data"\n[broker]\n{url}{broker}\n{extra}\n'
            '[[streams]]\nname = "pump"\nbundle = "tiny.tsad"\nsource = { type = "stdin" }\n'
            f"{streams}"
        )
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge_tsad", "run", "gateway.toml", *options],
                cwd=self.folder, stdin=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip

    def feed(self, values: list[float]) -> None:
        """One sample a second."""
        assert self.process and self.process.stdin
        for value in values:
            self.process.stdin.write(f"{self.second},{value},0\n")
            self.second += 1
        self.process.stdin.flush()

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.communicate(timeout=20)
            self.process = None

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None
