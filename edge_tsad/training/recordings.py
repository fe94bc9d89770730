"""What a gateway has recorded, as a series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge_tsad.errors import DataError
from edge_tsad.runtime.segments import read_recording
from edge_tsad.training.series import Series

__all__ = ["read_folder"]


def read_folder(path: Path, **options: Any) -> Series:
    """The series in a folder of segments, with the channels, units and grid of the recording.

    Args:
        path: the folder.
        options: ``columns``, the names of those channels that are wanted; others are refused.

    Raises:
        DataError: it holds no recording or no such channel, or an option is of no use here.
    """
    for name in ("time", "label", "step_ns", "key"):
        if options.get(name) is not None:
            raise DataError(f"{path}: is a recording, which has no choice of {name}")
    recording = read_recording(path)
    layout = recording.layout
    names = [channel.name for channel in layout.channels]
    wanted = options.get("columns") or names
    absent = [name for name in wanted if name not in names]
    if absent:
        raise DataError(f"{path}: has no channel {absent[0]!r}; it has {', '.join(names)}")
    positions = [names.index(name) for name in wanted]
    return Series(
        recording.times_ns,
        np.ascontiguousarray(recording.values[:, positions]),
        tuple(layout.channels[i] for i in positions),
        layout.step_ns,
        layout.has_rate,
        name=str(path),
    )
