"""Samples from standard input, one a line: numbers, CSV or JSON."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edge_tsad.runtime.sources.base import Batch, Complaints, batch_of
from edge_tsad.runtime.sources.lines import LineParser
from edge_tsad.types import Channel, Timing

__all__ = ["StdinSource"]

ROWS = 512


@dataclass(frozen=True, slots=True)
class StdinOptions:
    """``spaced``: lines without a time are one grid step apart, instead of stamped on arrival."""

    spaced: bool = False

    def at(self, folder: Path) -> StdinOptions:
        """The same: there are no paths in it."""
        return self


class StdinSource:
    """Lines of standard input, as :class:`LineParser` reads them."""

    Options: ClassVar[type[StdinOptions]] = StdinOptions

    def __init__(
        self,
        options: StdinOptions,
        channels: tuple[Channel, ...],
        timing: Timing,
        descriptor: int | None = None,
    ) -> None:
        self.complaints = Complaints("standard input")
        self.lines = LineParser(channels, timing, self.complaints, spaced=options.spaced)
        self._descriptor = descriptor

    @property
    def live(self) -> bool:
        """Whether lines are stamped on arrival."""
        return self.lines.live

    @classmethod
    def known_channels(cls, options: StdinOptions) -> tuple[Channel, ...]:
        """None: nobody has written yet."""
        return ()

    def batches(self, stop: threading.Event) -> Iterator[Batch]:
        """All the lines that have arrived, at most 512 at a time."""
        descriptor = sys.stdin.fileno() if self._descriptor is None else self._descriptor
        while not stop.is_set():
            if not select.select([descriptor], [], [], 0.2)[0]:
                continue
            data = os.read(descriptor, 1 << 16)
            samples = self.lines.feed(data) if data else self.lines.end()
            for begin in range(0, len(samples), ROWS):
                times, rows = zip(*samples[begin : begin + ROWS], strict=True)
                yield batch_of(list(times), list(rows))
            if not data:
                return
