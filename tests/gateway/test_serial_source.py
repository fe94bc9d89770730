"""The source serial, over a pseudo-terminal: a port that is unplugged, and junk on the line."""

from __future__ import annotations

import os
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_tsad.errors import ConfigError
from edge_tsad.runtime.sources import serial
from edge_tsad.runtime.sources.base import Complaints
from edge_tsad.runtime.sources.lines import LineParser
from edge_tsad.runtime.sources.serial import SerialOptions, SerialSource
from edge_tsad.types import Channel, Timing

TIMING = Timing(10**9, 4, 1, 0, 1, 4)
AB = (Channel("a"), Channel("b"))


class Port:
    """A terminal that plays a serial port at the path ``at``; it can be pulled out."""

    def __init__(self, at: Path) -> None:
        self.at = at
        self.master = -1

    def plug_in(self) -> None:
        self.master, slave = os.openpty()
        tty.setraw(slave)
        self.at.unlink(missing_ok=True)
        self.at.symlink_to(os.ttyname(slave))
        self.slave = slave

    def pull_out(self) -> None:
        os.close(self.slave)
        os.close(self.master)
        self.at.unlink()
        self.master = -1

    def write(self, data: bytes) -> None:
        os.write(self.master, data)


class Reading:
    def __init__(self, path: Path) -> None:
        self.source = SerialSource(SerialOptions(str(path)), AB, TIMING)
        self.rows: list[list[float]] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self) -> None:
        for batch in self.source.batches(self.stop):
            self.rows += batch.values.tolist()

    def wait(self, condition: object, limit_s: float = 15) -> None:
        end = time.monotonic() + limit_s
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < end, (self.rows, self.source.complaints.counts)
            time.sleep(0.02)


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Port]:
    made = Port(tmp_path / "ttyUSB0")
    yield made
    if made.master >= 0:
        made.pull_out()


def test_lines_are_read_over_unplugging_and_junk(
    port: Port, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serial, "AGAIN_S", 0.1)
    reading = Reading(port.at)
    complaints = reading.source.complaints
    reading.wait(lambda: complaints.active == {"DISCONNECTED"})
    port.plug_in()
    reading.wait(lambda: not complaints.active)
    port.write(b"99\n1,2\n")  # the first line may be the end of a longer one
    reading.wait(lambda: reading.rows == [[1, 2]])
    port.write(b"\xff\x00junk\n3 4\r\n5,")
    reading.wait(lambda: len(reading.rows) == 2)
    port.pull_out()
    reading.wait(lambda: "DISCONNECTED" in complaints.active)
    port.plug_in()
    reading.wait(lambda: "DISCONNECTED" not in complaints.active)
    port.write(b"6\n7,8\n")
    reading.wait(lambda: len(reading.rows) == 3)
    assert reading.rows == [[1, 2], [3, 4], [7, 8]]
    assert complaints.counts["MALFORMED"] == 1 and reading.source.live
    assert caplog.text.count("is waited for") == 2
    reading.stop.set()
    reading.thread.join(10)
    assert not reading.thread.is_alive()


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=40), max_size=8), st.booleans())
def test_no_bytes_in_any_pieces_make_the_parser_fail(pieces: list[bytes], rated: bool) -> None:
    timing = TIMING if rated else Timing(10**9, 4, 1, 0, 1, 4, has_rate=False)
    lines = LineParser(AB, timing, Complaints("test"))
    samples = [sample for piece in pieces for sample in lines.feed(piece)] + lines.end()
    assert all(isinstance(t, int) and len(row) == 2 for t, row in samples)


@given(st.data())
def test_pieces_do_not_change_what_is_read(data: st.DataObject) -> None:
    text = b"1,1,2\n2,3,4\njunk\n3,,5\n[4, 1, 2]\n"
    whole = LineParser(AB, TIMING, Complaints("test"))
    expected = whole.feed(text)
    cut = LineParser(AB, TIMING, Complaints("test"))
    found, rest = [], text
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        found += cut.feed(rest[:size])
        rest = rest[size:]
    assert repr(found) == repr(expected) and len(found) == 4


def test_options_and_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"source\.baud: 0 is not positive"):
        SerialOptions("x", 0)
    with pytest.raises(ConfigError, match=r"source\.port: is empty"):
        SerialOptions("")
    monkeypatch.setitem(__import__("sys").modules, "serial", None)
    with pytest.raises(ConfigError, match=r'pip install "edge-tsad\[serial\]"'):
        SerialSource(SerialOptions("x"), AB, TIMING)
