"""A real sshd on loopback: own host key, own keys for each gateway, each with its own folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bridge.releases import HandClock, bring, device, prepare, release

import firmware_bridge
from firmware_bridge.device import Device

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")


FAULTS = pytest.StashKey[dict[tuple[str, str], list[str]]]()


@pytest.fixture
def fault_table(request: pytest.FixtureRequest) -> dict[tuple[str, str], list[str]]:
    """What served after each pair of step and fault, or FAILED; printed below the results."""
    return request.config.stash.setdefault(FAULTS, {})


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    table = config.stash.get(FAULTS, {})
    if not table:
        return
    faults = list(dict.fromkeys(fault for _, fault in table))
    terminalreporter.section("cases in which one valid bundle served and was told of / all cases")
    for number, fault in enumerate(faults, 1):
        terminalreporter.line(f"({number}) {fault}")
    terminalreporter.line(" " * 26 + "".join(f"{f'({n + 1})':>7}" for n in range(len(faults))))
    for step in dict.fromkeys(step for step, _ in table):
        cells = (table.get((step, fault), []) for fault in faults)
        row = (f"{sum(s != 'FAILED' for s in seen)}/{len(seen)}" if seen else "" for seen in cells)
        terminalreporter.line(f"{step:26}" + "".join(f"{cell:>7}" for cell in row))
    cases = [served for seen in table.values() for served in seen]
    good = sum(served != "FAILED" for served in cases)
    terminalreporter.line(f"{good} of {len(cases)} cases; {len(faults)} faults")


NAMES = ("gw-1", "gw-2", "gw-bare", "gw-none", "gw-stranger", "gw-changed")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def keygen(path: Path) -> Path:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True)
    return path


class Sshd:
    """Gateways ``gw-1`` and ``gw-2`` behind one sshd; ``config`` is what a user's ssh reads.

    Each gateway has a key pair whose forced command is its agent, so it sees nothing but its own
    folder. ``gw-bare`` gives a shell, ``gw-none`` has no agent, ``gw-stranger`` no key,
    ``gw-changed`` another host key.
    """

    def __init__(self, folder: Path, python: str = "") -> None:
        self.folder, self.port = folder, free_port()
        # The agent of this very tree, whatever else is installed.
        tree = f"PYTHONPATH={Path(firmware_bridge.__file__).parents[1]}"
        python = python or f"env {tree} {sys.executable}"
        self.roots = {name: prepare(folder / name / "root") for name in ("gw-1", "gw-2")}
        host = keygen(folder / "host_key")
        lines, hosts = [], []
        for name in NAMES:
            key = keygen(folder / f"{name}.key")
            agent = f"{python} -m firmware_bridge.agent --root {self.roots.get(name)} serve"
            forced = "/nowhere/python" if name == "gw-none" else agent
            public = key.with_suffix(".key.pub").read_text()
            if name == "gw-bare":
                lines.append(f"restrict {public}")
            elif name != "gw-stranger":
                lines.append(f'restrict,command="{forced}" {public}')
            hosts.append(f"Host {name}\n  IdentityFile {key}\n  HostKeyAlias {name}\n")
        (folder / "authorized_keys").write_text("".join(lines))
        public = " ".join(host.with_suffix(".pub").read_text().split()[:2])
        other = " ".join(keygen(folder / "other").with_suffix(".pub").read_text().split()[:2])
        known = [f"{n} {public}\n" for n in NAMES if n != "gw-changed"]
        (folder / "known_hosts").write_text("".join(known) + f"gw-changed {other}\n")
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {host}\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nPermitRootLogin yes\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        )
        self.hosts = "".join(hosts)
        self.config = self.client_config("config", self.port)
        self._process: subprocess.Popen[bytes] | None = None

    def client_config(self, name: str, port: int) -> Path:
        """A user's configuration by which all gateways are at ``port``."""
        path = self.folder / name
        path.write_text(
            f"{self.hosts}\nHost *\n  HostName 127.0.0.1\n  Port {port}\n  IdentitiesOnly yes\n"
            f"  IdentityAgent none\n  UserKnownHostsFile {self.folder}/known_hosts\n"
            "  GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n"
        )
        return path

    def start(self) -> None:
        assert SSHD
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd asks for it
        with (self.folder / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")], stderr=log
            )
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert self._process.poll() is None, (self.folder / "sshd.log").read_text()
                time.sleep(0.05)
            else:
                return
        raise AssertionError((self.folder / "sshd.log").read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    if SSHD is None or shutil.which("ssh") is None:
        if os.environ.get("CI"):
            pytest.fail("sshd is missing; CI installs it")
        pytest.skip("SSHD IS MISSING: flashing is not tested (apt install openssh-server)")
    server = Sshd(tmp_path_factory.mktemp("ssh"))
    server.start()
    yield server
    server.stop()


class CuttingProxy:
    """Passes bytes to ``port``; each connection is cut once it has sent its number of ``budgets``.

    Connections beyond the list are passed whole. ``sent`` counts what each of them sent.
    """

    def __init__(self, port: int, budgets: list[int]) -> None:
        self._target, self._budgets = port, budgets
        self.sent: list[int] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            number = len(self.sent)
            self.sent.append(0)
            server = socket.create_connection(("127.0.0.1", self._target))
            for work, given in ((self._up, (client, server, number)), (copy, (server, client))):
                threading.Thread(target=work, args=given, daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket, number: int) -> None:
        budget = self._budgets[number] if number < len(self._budgets) else 1 << 60
        while data := receive(client):
            self.sent[number] += len(data)
            if self.sent[number] > budget:
                break
            server.sendall(data)
        for end in (client, server):
            hang_up(end)


def copy(source: socket.socket, sink: socket.socket) -> None:
    while data := receive(source):
        try:
            sink.sendall(data)
        except OSError:
            break
    hang_up(sink)


def receive(source: socket.socket) -> bytes:
    try:
        return source.recv(1 << 14)
    except OSError:
        return b""


def hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@pytest.fixture
def cutting(sshd: Sshd) -> Iterator[CuttingProxy]:
    """A line that is cut in the middle of the first two uploads."""
    proxy = CuttingProxy(sshd.port, [300_000, 300_000])
    yield proxy
    proxy.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return prepare(tmp_path / "gateway")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def gateway(root: Path, clock: HandClock) -> Device:
    """A gateway on which release 1 is committed."""
    made = device(root, clock)
    bring(made, release(1))
    return made
