"""Samples from a serial port, one a line: a microcontroller that prints its measurements."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from edge_tsad.errors import ConfigError
from edge_tsad.runtime.sources.base import Batch, Complaints, batch_of
from edge_tsad.runtime.sources.lines import LineParser
from edge_tsad.types import Channel, Timing

__all__ = ["SerialSource"]

WAIT_S = 0.2
AGAIN_S = 2.0
LARGEST_READ = 1 << 16


@dataclass(frozen=True, slots=True)
class SerialOptions:
    """``port``: such as ``/dev/ttyUSB0`` or a URL of pyserial (``socket://host:port``).

    The rest is how the bytes are sent; ``spaced`` as in the source ``stdin``.
    """

    port: str
    baud: int = 115_200
    parity: Literal["N", "E", "O"] = "N"
    stop_bits: Literal[1, 2] = 1
    spaced: bool = False

    def __post_init__(self) -> None:
        if not self.port:
            raise ConfigError("source.port: is empty")
        if self.baud <= 0:
            raise ConfigError(f"source.baud: {self.baud} is not positive")

    def at(self, folder: Path) -> SerialOptions:
        """The same: a port is no file of the configuration."""
        return self


class SerialSource:
    """Lines of a port, as :class:`LineParser` reads them.

    A port that is not there yet, or is unplugged, is waited for. The first line after it was opened
    is left out: half of it may have passed.
    """

    Options: ClassVar[type[SerialOptions]] = SerialOptions

    def __init__(
        self, options: SerialOptions, channels: tuple[Channel, ...], timing: Timing
    ) -> None:
        self.options = options
        self.complaints = Complaints(options.port)
        self.lines = LineParser(channels, timing, self.complaints, spaced=options.spaced)
        self._serial = import_serial()

    @property
    def live(self) -> bool:
        """Whether lines are stamped on arrival."""
        return self.lines.live

    @classmethod
    def known_channels(cls, options: SerialOptions) -> tuple[Channel, ...]:
        """None: what the lines hold is not known."""
        return ()

    def batches(self, stop: threading.Event) -> Iterator[Batch]:
        """The lines that have arrived, until ``stop``: a port has no end."""
        while not stop.is_set():
            try:
                with self._open() as port:
                    self.complaints.over("DISCONNECTED")
                    self.lines.begin_inside()
                    yield from self._read(port, stop)
            except (OSError, ValueError) as e:  # SerialException is an OSError
                self.complaints.note("DISCONNECTED", f"it cannot be read ({e}) and is waited for")
                stop.wait(AGAIN_S)

    def _open(self) -> Any:
        return self._serial.serial_for_url(
            self.options.port,
            baudrate=self.options.baud,
            parity=self.options.parity,
            stopbits=self.options.stop_bits,
            timeout=WAIT_S,
        )

    def _read(self, port: Any, stop: threading.Event) -> Iterator[Batch]:
        while not stop.is_set():
            data = port.read(min(max(1, port.in_waiting), LARGEST_READ))
            samples = self.lines.feed(data) if data else []
            if samples:
                times, rows = zip(*samples, strict=True)
                yield batch_of(list(times), list(rows))


def import_serial() -> Any:
    """The module of pyserial.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("serial")
    except ImportError as e:
        raise ConfigError(
            'source serial: needs pyserial; install it with: pip install "edge-tsad[serial]"'
        ) from e
