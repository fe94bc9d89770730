"""The gateway's own figures: a first real sensor that needs no wiring."""

from __future__ import annotations

import importlib
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from edge_tsad.errors import ConfigError, DataError
from edge_tsad.runtime.sources.base import Batch, Complaints, batch_of
from edge_tsad.types import NANOSECONDS, Channel, Timing

__all__ = ["QUANTITIES", "SystemSource"]

QUANTITIES = {
    "cpu_percent": "%",
    "memory_percent": "%",
    "temperature_c": "°C",
    "net_received_bytes_per_s": "B/s",
    "net_sent_bytes_per_s": "B/s",
}
SENSORS = ("cpu_thermal", "coretemp", "k10temp", "soc_thermal", "acpitz")


@dataclass(frozen=True, slots=True)
class SystemOptions:
    """``interval_s`` between samples; 0 is one grid step of the bundle."""

    interval_s: float = 0.0

    def __post_init__(self) -> None:
        if self.interval_s < 0:
            raise ConfigError(f"source.interval_s: {self.interval_s} is negative")

    def at(self, folder: Path) -> SystemOptions:
        """The same: there are no paths in it."""
        return self


class SystemSource:
    """CPU and memory use, temperature and network rates of this machine, through psutil.

    A channel takes the quantity of its name; see :data:`QUANTITIES`.
    """

    Options: ClassVar[type[SystemOptions]] = SystemOptions

    def __init__(
        self, options: SystemOptions, channels: tuple[Channel, ...], timing: Timing
    ) -> None:
        unknown = [channel.name for channel in channels if channel.name not in QUANTITIES]
        if unknown:
            raise DataError(
                f"source system: has no {', '.join(map(repr, unknown))}; it has "
                f"{', '.join(QUANTITIES)}"
            )
        self.names = [channel.name for channel in channels]
        self.timing = timing
        self.interval_ns = int(options.interval_s * NANOSECONDS) or timing.step_ns
        self.live = timing.has_rate
        self.complaints = Complaints("source system")
        self._psutil = import_psutil()
        self._network: tuple[float, int, int] | None = None

    @classmethod
    def known_channels(cls, options: SystemOptions) -> tuple[Channel, ...]:
        """The quantities that this machine has.

        Raises:
            ConfigError: psutil is missing.
        """
        every = tuple(Channel(name, unit) for name, unit in QUANTITIES.items())
        probe = cls(options, every, Timing(NANOSECONDS, 2, 1, 0, 1, 1))
        figures = probe.measure()
        rates = ("net_received_bytes_per_s", "net_sent_bytes_per_s")  # NaN on the first call
        return tuple(c for c in every if c.name in rates or not math.isnan(figures[c.name]))

    def batches(self, stop: threading.Event) -> Iterator[Batch]:
        """One sample an interval, at its multiples since the epoch."""
        self._psutil.cpu_percent()  # the first call only starts the measurement
        self._rates()
        position = 0
        while not stop.wait((self.interval_ns - time.time_ns() % self.interval_ns) / NANOSECONDS):
            counted_ns = position * self.timing.step_ns
            times = [time.time_ns() if self.timing.has_rate else counted_ns]
            figures = self.measure()
            yield batch_of(times, [[figures[name] for name in self.names]])
            position += 1

    def measure(self) -> dict[str, float]:
        """All quantities now, NaN where this machine has none."""
        received, sent = self._rates()
        return {
            "cpu_percent": self._psutil.cpu_percent(),
            "memory_percent": self._psutil.virtual_memory().percent,
            "temperature_c": self._temperature(),
            "net_received_bytes_per_s": received,
            "net_sent_bytes_per_s": sent,
        }

    def _rates(self) -> tuple[float, float]:
        """Bytes per second received and sent since the last call; NaN on the first."""
        counters = self._psutil.net_io_counters()
        before = self._network
        now_s = time.monotonic()
        if counters is None:
            return math.nan, math.nan
        self._network = (now_s, counters.bytes_recv, counters.bytes_sent)
        if before is None or now_s <= before[0]:
            return math.nan, math.nan
        span_s = now_s - before[0]
        return (
            max(0, counters.bytes_recv - before[1]) / span_s,
            max(0, counters.bytes_sent - before[2]) / span_s,
        )

    def _temperature(self) -> float:
        """The hottest reading of the processor's own sensor; NaN where there is none."""
        if "temperature_c" not in self.names:
            return math.nan
        readings: dict[str, list[Any]] = getattr(self._psutil, "sensors_temperatures", dict)()
        known: list[Any] = next((readings[name] for name in SENSORS if readings.get(name)), [])
        if not known:
            self.complaints.note("NO_TEMPERATURE", "this machine has no processor temperature")
            return math.nan
        return float(max(reading.current for reading in known))


def import_psutil() -> Any:
    """The psutil module.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("psutil")
    except ImportError as e:
        raise ConfigError(
            'source system: needs psutil; install it with: pip install "edge-tsad[system]"'
        ) from e
