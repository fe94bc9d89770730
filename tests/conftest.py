"""Fixtures for all tests: a real MQTT broker on a loopback port of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

EXECUTABLE = shutil.which("mosquitto") or shutil.which(
    "mosquitto", path="/usr/sbin:/usr/local/sbin"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """One mosquitto; ``url`` is what clients are given. ``start`` may add lines to its file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.snippet = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self, snippet: str | None = None) -> None:
        """Start, and wait until it listens; ``snippet`` replaces the lines of the start before."""
        assert EXECUTABLE
        self.stop()
        self.snippet = self.snippet if snippet is None else snippet
        anonymous = "" if "allow_anonymous" in self.snippet else "allow_anonymous true\n"
        file = self.folder / "mosquitto.conf"
        file.write_text(
            f"listener {self.port} 127.0.0.1\n{anonymous}persistence true\n"
            f"persistence_location {self.folder}/\n{self.snippet}\n"
        )
        if os.geteuid() == 0:
            file.write_text(f"user root\n{file.read_text()}")
        log = (self.folder / "mosquitto.log").open("ab")
        self._process = subprocess.Popen(
            [EXECUTABLE, "-c", str(file)], stdout=log, stderr=subprocess.STDOUT
        )
        log.close()
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert self._process.poll() is None, self.log()
                time.sleep(0.02)
            else:
                return
        raise AssertionError(self.log())

    def stop(self) -> None:
        """Stop it cleanly, so that it saves its sessions; nothing if it does not run."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def restart(self) -> None:
        """Stop and start on the same port with the same file."""
        self.stop()
        self.start()

    def log(self) -> str:
        return (self.folder / "mosquitto.log").read_text()


@pytest.fixture
def stopped_mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that is not running yet: for its own configuration, or to be found missing."""
    if EXECUTABLE is None:
        if os.environ.get("CI"):
            pytest.fail("mosquitto is missing; CI installs it")
        pytest.skip("MOSQUITTO IS MISSING: the gateway is not tested (apt install mosquitto)")
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    broker = Mosquitto(folder)
    yield broker
    broker.stop()


@pytest.fixture
def mosquitto(stopped_mosquitto: Mosquitto) -> Mosquitto:
    """A running broker without passwords on a port of its own."""
    stopped_mosquitto.start()
    return stopped_mosquitto
