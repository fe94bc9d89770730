"""The bytes of a recording: a header, then blocks of rows, each with its own checksum.

::

    segment  = magic "ETSHIST1", u32 length, u32 crc32, JSON {"format", "step_ns", …}, block*
    block    = magic "BLK1", u32 rows n, u32 length, u32 crc32 of rows and data, data
    data     = zlib of (index i64[n] as differences, values f32[C, n]), bytes of one weight together

Numbers are little-endian. A value that was not observed is NaN.
"""

from __future__ import annotations

import json
import logging
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_tsad.decode import decode
from edge_tsad.errors import DataError, EdgeTsadError
from edge_tsad.files import read_limited
from edge_tsad.types import Cells, Channel, FloatArray, IndexArray

__all__ = ["Layout", "Recording", "encode_block", "read_recording", "scan", "segments"]

log = logging.getLogger(__name__)

SEGMENT = struct.Struct("<8sII")
BLOCK = struct.Struct("<4sIII")
SEGMENT_MAGIC, BLOCK_MAGIC = b"ETSHIST1", b"BLK1"
LARGEST_SEGMENT = 1 << 30
LARGEST_HEADER = 1 << 20
MOST_ROWS = 1 << 16
LEVEL = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """Grid and channels of a segment; without a rate the index counts points."""

    step_ns: int
    channels: tuple[Channel, ...]
    has_rate: bool = True
    format: int = 1

    def __post_init__(self) -> None:
        if self.format != 1:
            raise DataError(f"recording: is of format {self.format}; this program reads format 1")
        if self.step_ns < 1 or not self.channels:
            raise DataError("recording: has no step or no channels")

    def header(self) -> bytes:
        """The first bytes of a segment."""
        text = json.dumps(asdict(self), ensure_ascii=False).encode()
        return SEGMENT.pack(SEGMENT_MAGIC, len(text), zlib.crc32(text)) + text


@dataclass(frozen=True, slots=True)
class Recording:
    """What was read: ``index`` i64[n] increasing, ``values`` f32[n, C] with NaN = missing.

    ``other`` counts segments of another layout, which were left out, ``damaged`` bytes that were
    not whole blocks.
    """

    layout: Layout
    index: IndexArray
    values: FloatArray
    other: int = 0
    damaged: int = 0

    @property
    def times_ns(self) -> IndexArray:
        """Times of the rows; without a rate nominal ones."""
        return self.index * self.layout.step_ns


def encode_block(cells: Cells, begin: int, end: int) -> bytes:
    """The rows ``begin``…``end`` of ``cells`` as a block."""
    index = cells.index[begin:end]
    values = np.where(cells.observed[begin:end] > 0, cells.values[begin:end], np.float32(np.nan))
    steps = np.diff(index, prepend=0).astype("<i8")
    data = shuffled(steps) + shuffled(np.ascontiguousarray(values.T, dtype="<f4"))
    packed = zlib.compress(data, LEVEL)
    check = zlib.crc32(packed, len(index))
    return BLOCK.pack(BLOCK_MAGIC, len(index), len(packed), check) + packed


def decode_block(packed: bytes, rows: int, channels: int) -> tuple[IndexArray, FloatArray]:
    """Index and values of a block.

    Raises:
        DataError: it holds something else than its header says.
    """
    size = rows * (8 + 4 * channels)
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(packed, size + 1)
    except zlib.error as e:
        raise DataError(f"recording: a block is damaged: {e}") from e
    if len(data) != size or not unpacker.eof:
        raise DataError("recording: a block has another size than it says")
    index = np.cumsum(unshuffled(data[: 8 * rows], 8).view("<i8")).astype(np.int64)
    values = unshuffled(data[8 * rows :], 4).view("<f4").reshape(channels, rows)
    return index, np.ascontiguousarray(values.T, dtype=np.float32)


def shuffled(array: npt.NDArray[Any]) -> bytes:
    """First the lowest bytes of all numbers, then the next: they compress far better."""
    return array.reshape(-1).view(np.uint8).reshape(-1, array.itemsize).T.tobytes()


def unshuffled(data: bytes, itemsize: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8).reshape(itemsize, -1).T.reshape(-1)


def segments(folder: Path) -> list[Path]:
    """The segment files in ``folder``, oldest first."""
    return sorted(path for path in folder.glob("*.seg") if path.stem.isdigit())


def scan(data: bytes) -> tuple[Layout | None, int, list[tuple[int, int, int]]]:
    """Layout of a segment (None: damaged), the end of its whole part, and its blocks.

    A block is (begin of its data, length, rows). Reading ends at the first that is not whole: what
    follows it was written after a failure and cannot be found.
    """
    layout, end = read_header(data)
    blocks: list[tuple[int, int, int]] = []
    while layout is not None and end + BLOCK.size <= len(data):
        magic, rows, length, check = BLOCK.unpack_from(data, end)
        begin = end + BLOCK.size
        if magic != BLOCK_MAGIC or not 0 < rows <= MOST_ROWS or begin + length > len(data):
            break
        if zlib.crc32(memoryview(data)[begin : begin + length], rows) != check:
            break
        blocks.append((begin, length, rows))
        end = begin + length
    return layout, end, blocks


def read_header(data: bytes) -> tuple[Layout | None, int]:
    if len(data) < SEGMENT.size:
        return None, 0
    magic, length, check = SEGMENT.unpack_from(data)
    end = SEGMENT.size + length
    text = data[SEGMENT.size : end]
    if magic != SEGMENT_MAGIC or length > LARGEST_HEADER or zlib.crc32(text) != check:
        return None, 0
    try:
        return decode(Layout, json.loads(text), "recording", DataError), end
    except (EdgeTsadError, ValueError) as e:
        log.warning("a segment is left out: %s", e)
        return None, 0


def read_recording(folder: Path, last_ns: int | None = None) -> Recording:
    """All rows of the newest layout, or those of its last ``last_ns`` nanoseconds.

    Rows come in the order of their index; of two with the same one the later written stays.

    Raises:
        DataError: there is nothing in it, or it cannot be read.
    """
    newest: Layout | None = None
    parts: list[tuple[IndexArray, FloatArray]] = []
    other = damaged = 0
    first = None
    for path in reversed(segments(folder)):
        data = read_limited(path, LARGEST_SEGMENT, DataError)
        layout, end, blocks = scan(data)
        damaged += len(data) - end
        newest = newest or layout
        if layout is None or layout != newest:
            other += layout is not None
            continue
        for index, values in reversed(list(rows_of(data, blocks, len(layout.channels)))):
            if last_ns is not None and first is None:
                first = int(index.max()) - last_ns // layout.step_ns
            kept = slice(None) if first is None else index > first
            parts.append((index[kept], values[kept]))
    if newest is None or not parts:
        raise DataError(f"{folder}: holds no recording")
    parts.reverse()
    index = np.concatenate([part[0] for part in parts])
    values = np.concatenate([part[1] for part in parts])
    order = np.argsort(index, kind="stable")
    last_of_its_kind = np.append(np.diff(index[order]) > 0, True)
    order = order[last_of_its_kind]
    return Recording(newest, index[order], values[order], other, damaged)


def rows_of(
    data: bytes, blocks: list[tuple[int, int, int]], channels: int
) -> Iterator[tuple[IndexArray, FloatArray]]:
    for begin, length, rows in blocks:
        yield decode_block(data[begin : begin + length], rows, channels)
