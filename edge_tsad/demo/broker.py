"""A broker for the demo: mosquitto where it is installed, else amqtt inside this process."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_tsad.errors import TransportError

__all__ = ["Broker", "broker"]

START_S = 10.0
# Debian puts mosquitto where an ordinary user's PATH does not lead.
SEARCH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin"


@dataclass(frozen=True)
class Broker:
    """A broker that listens on the loopback interface; ``protocol`` is the newest it speaks."""

    program: str
    port: int
    protocol: str

    @property
    def url(self) -> str:
        """What a client connects to."""
        return f"mqtt://127.0.0.1:{self.port}"


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[Broker]:
    """A running broker on a free loopback port; its files go to ``folder``.

    Raises:
        TransportError: neither mosquitto nor amqtt is installed, or it did not start.
    """
    port = _free_port()
    mosquitto = shutil.which("mosquitto") or shutil.which("mosquitto", path=SEARCH)
    if mosquitto:
        with _mosquitto(mosquitto, port, folder):
            yield Broker("mosquitto", port, "5")
    else:
        with _amqtt(port):
            yield Broker("amqtt", port, "3.1.1")


@contextlib.contextmanager
def _mosquitto(program: str, port: int, folder: Path) -> Iterator[None]:
    settings = folder / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    with (folder / "mosquitto.log").open("wb") as log:
        process = subprocess.Popen([program, "-c", str(settings)], stdout=log, stderr=log)
        try:
            _wait_until_open(port)
            yield
        finally:
            process.terminate()
            process.wait(timeout=START_S)


@contextlib.contextmanager
def _amqtt(port: int) -> Iterator[None]:
    try:
        from amqtt.broker import Broker as EmbeddedBroker  # noqa: PLC0415 - only where it is needed
    except ModuleNotFoundError as error:
        raise TransportError(
            "no MQTT broker is installed: install mosquitto, or amqtt with "
            'pip install "edge-tsad[demo]"'
        ) from error
    settings = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="amqtt", daemon=True)
    thread.start()

    async def make() -> EmbeddedBroker:
        embedded = EmbeddedBroker(settings)
        await embedded.start()
        return embedded

    embedded = asyncio.run_coroutine_threadsafe(make(), loop).result(START_S)
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(embedded.shutdown(), loop).result(START_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(START_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_open(port: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TransportError(f"the broker did not open port {port} within {START_S:.0f} s")
