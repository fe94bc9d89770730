"""What an artefact is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edge_tsad.errors import ConfigError, SignatureError

__all__ = ["DEFAULT_INBOX", "Artefact", "Signer", "require_word"]

DEFAULT_INBOX = "/var/lib/edge-tsad-agent/inbox"
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,99}")
FOLDER = re.compile(r"(/[A-Za-z0-9._+-]+)+")


@dataclass(frozen=True, slots=True)
class Signer:
    """The fleet's own certificate and key (PEM); our signature is inside the bundle."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Artefact:
    """A bundle and where it goes: ``compatible`` is what the fleet calls its kind of gateway."""

    name: str
    version: str
    filename: str
    data: bytes
    compatible: str
    inbox: str = DEFAULT_INBOX
    signer: Signer | None = None

    def __post_init__(self) -> None:
        require_word(self.compatible, "--compatible")
        if not FOLDER.fullmatch(self.inbox) or ".." in self.inbox.split("/"):
            raise ConfigError(f"--inbox: {self.inbox!r} is no absolute path of plain letters")

    @property
    def label(self) -> str:
        """Name and version."""
        return f"{self.name}-{self.version}"

    def require_signer(self, tool: str) -> Signer:
        """The fleet's key.

        Raises:
            SignatureError: none was given.
        """
        if self.signer is None:
            raise SignatureError(
                f"{tool} takes only what the fleet signed; give --certificate and --key (PEM)"
            )
        return self.signer


def require_word(text: str, where: str) -> None:
    """Refuse what could end a string in one of the tools' own languages.

    Raises:
        ConfigError: it could.
    """
    if not WORD.fullmatch(text):
        raise ConfigError(f"{where}: {text!r} is not up to 100 letters, digits, blanks, '._+-'")
