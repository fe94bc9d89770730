"""Over the system's OpenSSH: its keys, agents, configuration and known hosts are the user's own."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_tsad.errors import EdgeTsadError, TransportError
from firmware_bridge.protocol import LINE_BYTES, PROTOCOL, pack_line, printable, unpack_reply
from firmware_bridge.transports.base import LineCutError

__all__ = ["DEFAULT_AGENT", "SshSession", "SshTransport"]

DEFAULT_AGENT = "/opt/edge-tsad/agent"
CONNECT_S = 20
ALIVE_S, ALIVE_COUNT = 5, 3
ANSWER_S = {"install": 300.0}
USUAL_ANSWER_S = 60.0
NOT_FOUND = (126, 127)
REFUSALS = {
    "Permission denied": "is your key in ~/.ssh/authorized_keys there?",
    "Host key verification failed": "it is not the machine that ~/.ssh/known_hosts knows; run ssh "
    "to it once to see why",
    "Could not resolve hostname": "is its name right?",
    "Bad configuration option": "mend your ssh configuration",
    "Can't open user config file": "give another --ssh-config",
    "Too many authentication": "name its key in your ssh configuration (IdentitiesOnly)",
    "a password is required": "the user may not become edge-tsad-agent there; log in as one who "
    "may use sudo without a password",
}
"""Last words that mean that trying again is of no use, and what to do."""


@dataclass(frozen=True, slots=True)
class SshTransport:
    """A gateway called as ``ssh`` calls it: ``user@host``, or a name in the user's configuration.

    ``config`` replaces the user's configuration file; ``root`` is the agent's folder there and
    ``agent`` the command that starts it; ``ask`` allows ssh to ask for a password or a new host.
    """

    gateway: str
    root: str = ""
    agent: str = DEFAULT_AGENT
    config: Path | None = None
    ask: bool = True

    def __post_init__(self) -> None:
        # ssh would take it for an option, and an option can run commands.
        if not self.gateway or self.gateway.startswith("-") or not self.gateway.isprintable():
            raise TransportError(f"{self.gateway!r}: is no gateway; give user@host")

    @property
    def name(self) -> str:
        """What the gateway is called in messages."""
        return self.gateway

    def command(self) -> list[str]:
        """The command line that starts the agent."""
        root = f" --root {shlex.quote(self.root)}" if self.root else ""
        return self.run(f"{self.agent}{root} serve")

    def run(self, command: str) -> list[str]:
        """The command line of ssh that runs ``command`` on the gateway.

        Raises:
            TransportError: there is no ssh here.
        """
        ssh = shutil.which("ssh")
        if ssh is None:
            raise TransportError("ssh is not installed here; install the package openssh-client")
        options = [
            f"ConnectTimeout={CONNECT_S}",
            f"ServerAliveInterval={ALIVE_S}",
            f"ServerAliveCountMax={ALIVE_COUNT}",
            *([] if self.ask else ["BatchMode=yes"]),
        ]
        words = [word for option in options for word in ("-o", option)]
        config = ["-F", str(self.config)] if self.config else []
        return [ssh, "-T", *config, *words, "--", self.gateway, command]

    def open(self) -> SshSession:
        """Begin a conversation.

        Raises:
            TransportError: ssh cannot reach the gateway, or there is no agent.
        """
        return SshSession(self.gateway, self.command())


class SshSession:
    """One run of ssh."""

    def __init__(self, gateway: str, command: list[str]) -> None:
        self.gateway = gateway
        self._buffer = bytearray()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the session
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
            )
        except OSError as e:
            raise TransportError(f"{gateway}: ssh could not be started: {e}") from e
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    def request(self, name: str, **fields: Any) -> dict[str, Any]:
        """Ask and wait for the answer; see :class:`Session`."""
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(pack_line({"request": name, **fields}))
            stdin.flush()
        except OSError as e:
            raise self._lost() from e
        return unpack_reply(self._line(ANSWER_S.get(name, USUAL_ANSWER_S)), self.gateway)

    def close(self) -> None:
        """End it; the agent ends with its input."""
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _greet(self) -> None:
        # A person may be typing a password meanwhile; ssh itself gives up on a silent host.
        line = self._line(USUAL_ANSWER_S * 2)
        if not line.startswith(b'{"agent":'):
            text = printable(line[:80].decode("latin-1")).strip()
            raise TransportError(
                f"{self.gateway}: answers {text!r}, which is not the agent of edge-tsad"
            )
        if not line.startswith(b'{"agent":%d,' % PROTOCOL):
            raise TransportError(f"{self.gateway}: has an agent of another version; update it")

    def _line(self, limit_s: float) -> bytes:
        """The next line that the agent sends."""
        stdout = self._process.stdout
        assert stdout is not None
        end_s = time.monotonic() + limit_s
        while (end := self._buffer.find(b"\n")) < 0:
            left_s = end_s - time.monotonic()
            if left_s <= 0 or not select.select([stdout], [], [], left_s)[0]:
                raise LineCutError(f"{self.gateway}: did not answer within {limit_s:.0f} s")
            piece = os.read(stdout.fileno(), 1 << 16)
            if not piece:
                raise self._lost()
            self._buffer += piece
            if len(self._buffer) > LINE_BYTES:
                raise TransportError(f"{self.gateway}: gave an answer without an end")
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        return line

    def _lost(self) -> EdgeTsadError:
        """Why ssh has ended."""
        try:
            status = self._process.wait(5)
        except subprocess.TimeoutExpired:
            status = 255
        self._errors.seek(0)
        lines = self._errors.read(1 << 16).decode("utf-8", "replace").strip().splitlines()
        said = printable(lines[-1]).strip() if lines else "the connection was closed"
        if status in NOT_FOUND or "No module named" in said:
            return TransportError(f"{self.gateway}: has no agent of edge-tsad there: {said}")
        for sign, advice in REFUSALS.items():
            if sign in said:
                return TransportError(f"{self.gateway}: {said.rstrip('.')}; {advice}")
        return LineCutError(f"{self.gateway}: {said}")
