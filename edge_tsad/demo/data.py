"""The demo's series: arterial blood pressure with one labelled anomaly, shipped by aeon."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_tsad.errors import ConfigError
from edge_tsad.types import FloatArray

__all__ = ["CHANNEL", "Recording", "blood_pressure"]

CHANNEL = "pressure"
HISTORY = 1200
"""Points of history; the archive's name of the series says so: 135_…_1200_4187_4199."""


@dataclass(frozen=True)
class Recording:
    """``values`` f32[n]: ``history`` normal points first; the anomaly is ``[begin, end)``."""

    name: str
    values: FloatArray
    history: int
    begin: int
    end: int

    def write(self, path: Path, begin: int, end: int | None = None) -> None:
        """Points ``begin``…``end`` − 1 as CSV with one column."""
        rows = [f"{value:.6g}" for value in self.values[begin:end]]
        path.write_text("\n".join([CHANNEL, *rows]) + "\n")


def blood_pressure() -> Recording:
    """UCR archive no. 135 as aeon ships it, 7,501 points.

    Raises:
        ConfigError: aeon is not installed.
    """
    try:
        from aeon.datasets import load_kdd_tsad_135  # noqa: PLC0415 - only the demo needs it
    except ModuleNotFoundError as error:
        raise ConfigError(
            'demo: aeon ships its data and is not installed; pip install "edge-tsad[all]"'
        ) from error
    values, labels = load_kdd_tsad_135(split="test")
    marked = np.flatnonzero(labels)
    return Recording(
        "UCR 135, arterial blood pressure",
        np.asarray(values, np.float32),
        HISTORY,
        int(marked[0]),
        int(marked[-1]) + 1,
    )
