"""The queue: order, bounds, ages, restarts, damage."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_tsad.errors import ConfigError
from edge_tsad.runtime.outbox import Bounds, Outbox
from edge_tsad.types import Now

DAY_S = 86_400.0


def at(monotonic_s: float, boot_id: str = "boot-1") -> Now:
    return Now(monotonic_s, 0, boot_id)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "outbox.db"


def numbers(outbox: Outbox) -> list[int]:
    return [row.seq for row in outbox.pending(limit=1000)]


def test_rows_are_kept_in_order_until_they_are_settled(path: Path) -> None:
    box = Outbox(path, Bounds(), at(0))
    box.commit("a", [b"1", b"2"], b"state-a", at(1))
    box.commit("b", [b"3"], b"state-b", at(2))
    assert [(r.seq, r.stream, r.payload) for r in box.pending()] == [
        (1, "a", b"1"), (2, "a", b"2"), (3, "b", b"3"),
    ]  # fmt: skip
    box.settle([2, 2, 99], at(3))
    assert numbers(box) == [1, 3]
    assert [row.seq for row in box.replay(2)] == [2, 3]
    assert (box.counts.rows, box.counts.pending, box.counts.bytes) == (3, 2, 3)
    assert box.state("a") == b"state-a" and box.state("c") is None
    box.close()


def test_a_restart_keeps_rows_states_numbers_and_epoch(path: Path) -> None:
    box = Outbox(path, Bounds(), at(0))
    box.commit("a", [b"1", b"2"], b"s", at(1))
    box.settle([1], at(1))
    epoch = box.epoch
    box.close()
    box = Outbox(path, Bounds(), at(0, "boot-2"))
    assert (box.epoch, box.next_seq, numbers(box), box.state("a")) == (epoch, 3, [2], b"s")
    assert box.counts.pending == 1 and box.set_aside is None
    box.close()


def test_numbers_are_not_given_twice_even_after_all_rows_are_gone(path: Path) -> None:
    box = Outbox(path, Bounds(retention_s=0), at(0))
    box.commit("a", [b"1"], b"", at(1))
    box.settle([1], at(1))
    assert box.prune(at(2)) == 0 and box.counts.rows == 0
    box.close()
    box = Outbox(path, Bounds(), at(3))
    assert box.next_seq == 2
    box.close()


def test_a_failing_transaction_leaves_nothing(path: Path) -> None:
    box = Outbox(path, Bounds(), at(0))
    box.commit("a", [b"1"], b"old", at(1))
    with pytest.raises(sqlite3.Error):
        box.commit("a", [b"2", object()], b"new", at(2))  # type: ignore[list-item]
    assert (numbers(box), box.state("a"), box.next_seq, box.counts.pending) == ([1], b"old", 2, 1)
    box.commit("a", [b"2"], b"new", at(3))
    assert numbers(box) == [1, 2]
    box.close()


def test_the_database_syncs_every_commit(path: Path) -> None:
    box = Outbox(path, Bounds(), at(0))
    assert box._db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    assert box._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    box.close()


@pytest.mark.parametrize("bounds", [Bounds(rows=3), Bounds(bytes=15)])
def test_bounds_drop_settled_rows_first_then_the_oldest_and_count_them(
    path: Path, bounds: Bounds
) -> None:
    box = Outbox(path, bounds, at(0))
    box.commit("a", [b"12345"] * 6, b"", at(1))
    box.settle([5], at(1))
    assert box.prune(at(2)) == 2
    assert numbers(box) == [3, 4, 6]
    assert (box.counts.dropped, box.counts.dropped_first, box.counts.dropped_last) == (2, 1, 2)
    box.close()
    box = Outbox(path, bounds, at(3))
    assert (box.counts.dropped, box.counts.dropped_last, box.counts.bytes) == (2, 2, 15)
    box.close()


def test_age_is_powered_on_time_whatever_the_wall_clock_says(path: Path) -> None:
    bounds = Bounds(age_s=10 * DAY_S, retention_s=DAY_S)
    box = Outbox(path, bounds, at(1000))
    box.commit("a", [b"1"], b"", Now(1000, 0, "boot-1"))
    box.close()
    # Years without power are no age; the uptime of the next boot is.
    late_wall = 10**18
    box = Outbox(path, bounds, Now(50, late_wall, "boot-2"))
    assert box.prune(Now(9 * DAY_S, late_wall, "boot-2")) == 0
    assert box.prune(Now(10 * DAY_S + 51, late_wall, "boot-2")) == 1
    box.close()


def test_time_between_two_processes_of_one_boot_counts(path: Path) -> None:
    bounds = Bounds(age_s=100)
    box = Outbox(path, bounds, at(0))
    box.commit("a", [b"1"], b"", at(10))
    box.close()
    box = Outbox(path, bounds, at(105))
    assert box.prune(at(109)) == 0
    assert box.prune(at(111)) == 1
    box.close()


def test_settled_rows_are_kept_for_the_retention(path: Path) -> None:
    box = Outbox(path, Bounds(retention_s=100), at(0))
    box.commit("a", [b"1"], b"", at(0))
    box.settle([1], at(50))
    assert box.prune(at(149)) == 0 and len(box.replay(1)) == 1
    assert box.prune(at(151)) == 0 and not box.replay(1)
    assert box.counts.dropped == 0
    box.close()


def make(path: Path) -> bytes:
    box = Outbox(path, Bounds(), at(0))
    for i in range(40):
        box.commit("a", [b"x" * 400], b"s", at(i))
    box.close()
    return path.read_bytes()


@pytest.mark.parametrize("damage", ["no database", "first page", "middle", "short", "zeros"])
def test_a_damaged_database_is_set_aside_and_said(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray(make(path))
    if damage == "no database":
        data = bytearray(b"not a database at all" * 500)
    elif damage == "first page":
        data[0:4000] = os.urandom(4000)
    elif damage == "middle":
        data[8192:16384] = b"\xff" * 8192
    elif damage == "short":
        del data[len(data) // 2 :]
    else:
        data[:] = bytes(len(data))
    path.write_bytes(data)
    box = Outbox(path, Bounds(), at(0))
    assert box.set_aside is not None and box.set_aside.read_bytes() == bytes(data)
    assert "set aside" in caplog.text
    box.commit("a", [b"new"], b"", at(1))
    assert len(box.pending()) == 1
    if damage in ("middle", "short"):
        assert box.next_seq in (2, 42)  # goes on where the old one can still be read
    box.close()


def test_a_second_damage_does_not_overwrite_what_was_set_aside(path: Path) -> None:
    first = None
    for _ in range(2):
        make(path)
        path.write_bytes(b"damaged" * 1000)
        box = Outbox(path, Bounds(), at(0))
        assert box.set_aside not in (None, first)
        first = box.set_aside
        box.close()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be opened"):
        Outbox(tmp_path / "file" / "outbox.db", Bounds(), at(0))


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=25))
def test_counts_agree_with_the_table(tmp_path: Path, steps: list[tuple[int, int]]) -> None:
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"
    bounds = Bounds(rows=6, bytes=40, age_s=20, retention_s=5)
    box = Outbox(path, bounds, at(0))
    committed = 0
    for time_s, (kind, size) in enumerate(steps):
        now = at(float(time_s))
        if kind <= 1:
            box.commit("a", [b"x" * size] * 2, b"", now)
            committed += 2
        elif kind == 2:
            box.settle([row.seq for row in box.pending(limit=size)], now)
        else:
            box.prune(now)
            assert box.counts.rows <= 6 and box.counts.bytes <= 40
    assert box.next_seq == committed + 1
    counted = box.counts
    box.close()
    box = Outbox(path, bounds, at(float(len(steps))))
    assert box.counts == counted
    box.close()
