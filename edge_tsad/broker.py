"""The tables ``[broker]``, ``[commands]`` and ``[home_assistant]`` of a configuration."""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from edge_tsad.errors import ConfigError
from edge_tsad.files import read_limited

__all__ = [
    "BrokerConfig",
    "CommandName",
    "CommandsConfig",
    "HomeAssistantConfig",
    "check_positive",
    "credential",
    "secret_file",
]

CommandName = Literal["ack", "silence", "sensitivity", "label", "replay"]
LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")
CREDENTIALS = "$CREDENTIALS_DIRECTORY/"
DEFAULT_PORT = {"mqtt": 1883, "mqtts": 8883}


def check_positive(owner: object, where: str, *names: str) -> None:
    """Refuse numbers that are not above 0."""
    for name in names:
        if getattr(owner, name) <= 0:
            raise ConfigError(f"{where}.{name}: {getattr(owner, name)} is not positive")


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """The MQTT broker.

    ``url`` is ``mqtt://host[:port]`` or, with TLS, ``mqtts://host[:port]``; a broker that is not on
    this machine needs TLS unless ``insecure`` allows to do without. The password is the first line
    of ``password_file``. It and ``key_file`` must be readable by their owner alone, or begin with
    ``$CREDENTIALS_DIRECTORY/``: then they are credentials that systemd hands to the service. Scores
    are published at most every ``score_interval_s`` a stream (0: not at all). At the end of all
    sources, what is left is waited for ``drain_s``.
    """

    url: str = "mqtt://localhost:1883"
    protocol: Literal["5", "3.1.1"] = "5"
    client_id: str = ""
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    insecure: bool = False
    keepalive_s: int = 30
    score_interval_s: float = 1.0
    drain_s: float = 10.0

    def __post_init__(self) -> None:
        check_positive(self, "broker", "keepalive_s")
        if self.score_interval_s < 0 or self.drain_s < 0:
            raise ConfigError("broker.score_interval_s: it and drain_s must not be negative")
        if not (self.tls or self.insecure or LOOPBACK.fullmatch(self.host)):
            raise ConfigError(
                f"broker.url: {self.host} is not this machine and {self.url!r} has no TLS; use "
                "mqtts:// or set insecure = true"
            )
        if self.key_file and not self.certificate_file:
            raise ConfigError("broker.key_file: needs certificate_file beside it")
        if self.password_file and not self.username:
            raise ConfigError("broker.password_file: needs username beside it")

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return split_url(self.url)[0] == "mqtts"

    @property
    def host(self) -> str:
        """Name or address of the broker."""
        return split_url(self.url)[1]

    @property
    def port(self) -> int:
        """TCP port of the broker."""
        return split_url(self.url)[2]

    def at(self, folder: Path) -> BrokerConfig:
        """The same with relative paths taken from ``folder``."""
        names = ("password_file", "ca_file", "certificate_file", "key_file")
        given: dict[str, Any] = {
            name: path if path.startswith(CREDENTIALS) else str(folder / path)
            for name in names
            if (path := getattr(self, name))
        }
        return dataclasses.replace(self, **given)

    def password(self) -> str | None:
        """The first line of ``password_file``; None without one.

        Raises:
            ConfigError: it cannot be read, or others can read it.
        """
        if not self.password_file:
            return None
        path = secret_file(self.password_file, "broker.password_file")
        data = read_limited(path, 4096, ConfigError)
        return data.decode("utf-8", "replace").split("\n", 1)[0].rstrip("\r")


def secret_file(path: str, where: str) -> Path:
    """The file of a secret, see :func:`credential`.

    Raises:
        ConfigError: it is a credential and systemd has given none, or others can read the file.
    """
    file = credential(path, where)
    given = path.startswith(CREDENTIALS)  # which systemd guards, with modes of its own
    if not given and file.is_file() and (mode := stat.S_IMODE(file.stat().st_mode)) & 0o077:
        raise ConfigError(f"{where}: {path} can be read by others (mode {mode:04o}); chmod 600 it")
    return file


def credential(path: str, where: str) -> Path:
    """The file ``path``, which is one of systemd's credentials if it begins so.

    Raises:
        ConfigError: systemd has given none.
    """
    if path.startswith(CREDENTIALS):
        folder = os.environ.get(CREDENTIALS[1:-1])
        if not folder:
            raise ConfigError(
                f"{where}: {path} is a credential of the service, and CREDENTIALS_DIRECTORY is not "
                "set; start it by systemd with LoadCredential="
            )
        return Path(folder) / path.removeprefix(CREDENTIALS)
    return Path(path)


@dataclass(frozen=True, slots=True)
class CommandsConfig:
    """Which commands the gateway takes from MQTT; none unless ``allow`` names it.

    ``sensitivity`` are the bounds within which a command may set that of a stream.
    """

    allow: tuple[CommandName, ...] = ()
    sensitivity: tuple[float, float] = (0.2, 5.0)

    def __post_init__(self) -> None:
        least, most = self.sensitivity
        if not 0.1 <= least <= most <= 10:
            raise ConfigError(
                f"commands.sensitivity: [{least:g}, {most:g}] are no bounds within 0.1…10"
            )


@dataclass(frozen=True, slots=True)
class HomeAssistantConfig:
    """Whether the gateway describes its streams to Home Assistant, and below which ``prefix``."""

    discovery: bool = False
    prefix: str = "homeassistant"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", self.prefix):
            raise ConfigError(f"home_assistant.prefix: {self.prefix!r} is no beginning of a topic")


def split_url(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a broker's URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as e:
        raise ConfigError(f"broker.url: {url!r} is no URL: {e}") from e
    if parts.scheme not in DEFAULT_PORT or not host or parts.path.strip("/") or parts.query:
        raise ConfigError(
            f"broker.url: {url!r} is not of the form mqtt://host[:port] or mqtts://host[:port]"
        )
    if parts.username or parts.password:
        raise ConfigError(
            "broker.url: holds a user or password; put them into username and password_file"
        )
    return parts.scheme, host, port or DEFAULT_PORT[parts.scheme]
