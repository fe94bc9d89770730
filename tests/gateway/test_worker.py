"""One stream through restarts, crashes and full disks; and the JSON that it sends."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles import tiny_bundle

from edge_tsad.config import GatewayConfig, parse_config
from edge_tsad.runtime import payload
from edge_tsad.runtime.opening import StreamOpener
from edge_tsad.runtime.outbox import Bounds, Outbox
from edge_tsad.runtime.sources.base import Batch
from edge_tsad.runtime.worker import StreamWorker
from edge_tsad.types import Channel, Now, Timing

NOW = Now(0, 0, "boot")
START = 1_800_000_000
SECOND = 10**9


def rows(values: list[float], start: int = START) -> Batch:
    """One a second on the first channel, the other is 0."""
    times = (np.arange(len(values), dtype=np.int64) + start) * SECOND
    table = np.zeros((len(values), 2), np.float32)
    table[:, 0] = values
    return Batch(times, table)


def config(folder: Path, bundle: Path, streams: int = 1) -> GatewayConfig:
    (folder / "x.csv").write_text("flow,pressure\n")
    tables = "".join(
        f'[[streams]]\nname = "s{i}"\nbundle = "{bundle}"\n'
        'source = { type = "csv", path = "x.csv" }\n'
        for i in range(streams)
    )
    return parse_config(f'site = "plant"\ndevice = "gw"\n{tables}', folder)


class Bench:
    """A stream that can be restarted."""

    def __init__(self, folder: Path, details: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.bundle = tiny_bundle.make(folder, details=details)
        self.outbox = Outbox(folder / "outbox.db", Bounds(), NOW)
        self.worker = self.make()

    def make(self) -> StreamWorker:
        (stream,) = StreamOpener(config(self.folder, self.bundle)).open_all()
        return StreamWorker(stream, self.outbox, self.folder / "s0.npz")

    def restart(self) -> None:
        self.worker = self.make()

    def take(self, values: list[float], start: int = START) -> int:
        """Returns the time after the last value."""
        self.worker.take(rows(values, start), NOW)
        return start + len(values)

    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(row.payload) for row in self.outbox.pending(limit=1000)]

    def kinds(self) -> list[str]:
        return [message["type"] for message in self.messages()]


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    made = Bench(tmp_path)
    yield made
    made.outbox.close()


QUIET = [0.5] * 20
SPIKE = [20.0] * 6


def test_an_alert_says_what_a_person_would_ask(bench: Bench) -> None:
    assert bench.worker.process == "WARMING_UP"
    bench.take(QUIET + SPIKE + QUIET)
    assert bench.worker.process == "OK"
    new, end = bench.messages()
    assert [new["type"], end["type"]] == ["new", "end"]
    assert (new["seq"], end["seq"]) == (1, 2) and new["id"] == end["id"] and new["epoch"]
    assert new["onset"] == end["onset"] == "2027-01-15T08:00:20.000Z"
    assert new["onset_index"] == START + 20 and new["index"] == START + 21
    assert (new["site"], new["device"], new["stream"]) == ("plant", "gw", "s0")
    assert new["score"] == new["peak"] == 20.0 and 2 < new["threshold"] < 20
    assert new["calibration"]["per"] == "7d" and new["rarity"]["openings"] >= 0
    assert new["calibration"]["state"] in ("CALIBRATED", "EXTRAPOLATED", "UNCALIBRATED")
    assert new["channels"][0] == {
        "name": "flow", "unit": "l/min", "share": 1.0, "seen": 20.0, "expected": 0.0,
    }  # fmt: skip
    assert new["rest_share"] == 0 and new["observed"] == 1.0 and not new["data_lost"]
    assert new["delay_s"] == 2.0 and new["late"] is False
    assert new["digest"] == bench.worker.facts.digest and new["bundle"] == "tiny-1.0.0"
    assert "flow makes 100% of it (20 l/min where 0 l/min was expected)" in new["reason"]
    assert end["reason"].startswith("s0 was unlike its history since 2027-01-15T08:00:20.000Z")


def test_an_alert_carries_what_only_its_detector_tells(tmp_path: Path) -> None:
    bench = Bench(tmp_path, details=("class", "turn_deg"))
    bench.take([*QUIET, 20.0, 20.0])
    bench.worker.snapshot()
    bench.restart()
    bench.take([20.0, 21.5, 20.0, *QUIET], START + 22)
    new, end = bench.messages()
    assert new["details"] == {"class": 20} and end["details"] == {"class": 21.5}
    assert "; class 20" in new["reason"] and "turn_deg" not in new["reason"]
    bench.outbox.close()


def test_an_alert_of_a_detector_without_details_has_none(bench: Bench) -> None:
    bench.take(QUIET + SPIKE)
    assert all("details" not in message for message in bench.messages())


def test_a_restart_resumes_where_the_snapshot_was_taken(bench: Bench, tmp_path: Path) -> None:
    values = list(np.random.default_rng(1).normal(size=200)) + SPIKE + QUIET
    bench.take(values)
    whole = bench.messages()
    other = Bench(tmp_path / "other") if (tmp_path / "other").mkdir() is None else bench
    for begin in range(0, len(values), 37):
        other.take(values[begin : begin + 37], START + begin)
        other.worker.snapshot()
        other.restart()
    cut = other.messages()
    for message in [*whole, *cut]:
        message.pop("id"), message.pop("epoch")
    assert cut == whole
    other.outbox.close()


def test_a_restart_while_firing_keeps_the_id(bench: Bench) -> None:
    after = bench.take(QUIET + SPIKE)
    assert bench.worker.process == "FIRING"
    bench.worker.snapshot()
    bench.restart()
    assert bench.worker.process == "FIRING"
    bench.take(QUIET, after)
    new, end = bench.messages()
    assert (new["type"], end["type"]) == ("new", "end") and new["id"] == end["id"]


@pytest.mark.parametrize("lost", [0, 1, 5, 100])
def test_a_crash_after_the_commit_neither_forgets_nor_repeats_the_alert(
    bench: Bench, lost: int
) -> None:
    after = bench.take(QUIET)
    bench.worker.snapshot()
    after = bench.take(SPIKE, after)
    bench.restart()  # without a snapshot: the scorer is 6 points behind the policy
    bench.take([*SPIKE, *QUIET, *QUIET], after + lost)
    assert bench.kinds() == ["new", "end"]
    new, end = bench.messages()
    assert new["id"] == end["id"]


def test_a_crash_without_any_snapshot_keeps_the_alert(bench: Bench) -> None:
    after = bench.take(QUIET + SPIKE)
    bench.restart()
    assert bench.worker.process == "FIRING"
    bench.take(SPIKE + QUIET, after)
    assert bench.kinds() == ["new", "end"]


def test_a_replay_from_the_beginning_ends_the_open_alert_and_raises_it_anew(bench: Bench) -> None:
    bench.take(QUIET + SPIKE)
    bench.worker.snapshot()
    bench.restart()
    bench.take(QUIET + SPIKE + QUIET)
    first, ended, second, end = bench.messages()
    assert [m["type"] for m in bench.messages()] == ["new", "end", "new", "end"]
    assert first["id"] == ended["id"] != second["id"] == end["id"]
    assert ended["data_lost"] and "cannot be followed any further" in ended["reason"]
    assert ended["onset"] == first["onset"] and ended["seq"] == 2


def test_another_bundle_ends_the_open_alert_of_the_old_one(bench: Bench, tmp_path: Path) -> None:
    after = bench.take(QUIET + SPIKE)
    bench.worker.snapshot()
    bench.bundle = tiny_bundle.make(tmp_path, name="another")
    bench.restart()
    bench.take(QUIET, after)
    assert bench.kinds() == ["new", "end"]
    assert bench.messages()[1]["digest"] != bench.worker.facts.digest
    assert bench.worker.process == "OK"


def test_a_damaged_snapshot_is_said_and_the_stream_starts_afresh(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    after = bench.take(QUIET)
    size = bench.worker.snapshot()
    file = bench.folder / "s0.npz"
    assert file.stat().st_size == size > 0
    file.write_bytes(file.read_bytes()[: size // 2])
    bench.restart()
    assert "starts afresh" in caplog.text
    bench.take(SPIKE + QUIET + SPIKE + QUIET, after)
    assert bench.kinds() == ["new", "end"]  # the first spike falls into the new warm-up


def test_a_full_disk_delays_alerts_and_loses_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "commit", full)
        after = bench.take(QUIET + SPIKE)
        after = bench.take(QUIET, after)
        bench.worker.advance(NOW)
        assert "OUTBOX_FAILED" in bench.worker.all_health() and not bench.messages()
    assert caplog.text.count("is not stored yet") == 1
    bench.worker.advance(NOW)
    assert bench.kinds() == ["new", "end"] and not bench.worker.all_health()


def test_no_snapshot_is_ahead_of_what_is_committed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    after = bench.take(QUIET)
    bench.worker.snapshot()
    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "commit", full)
        bench.take(SPIKE, after)
        assert bench.worker.uncommitted == 1 and bench.worker.snapshot() == 0
    bench.restart()  # a crash; the source delivers again what came after the snapshot
    bench.take(SPIKE + QUIET, after)
    assert bench.kinds() == ["new", "end"] and bench.worker.snapshot() > 0


@pytest.mark.parametrize("lost", [0, 1000])
def test_an_alert_keeps_its_id_though_the_outbox_was_set_aside(bench: Bench, lost: int) -> None:
    after = bench.take(QUIET + SPIKE)
    bench.worker.snapshot()
    (new,) = bench.messages()
    bench.outbox.close()
    bench.outbox = Outbox(bench.folder / "another.db", Bounds(), NOW)
    bench.restart()
    bench.take(QUIET, after if not lost else START - lost)
    (end,) = bench.messages()
    assert (end["type"], end["id"], end["onset"]) == ("end", new["id"], new["onset"])


def test_an_alert_that_ended_is_not_repeated_when_the_source_delivers_again(bench: Bench) -> None:
    after = bench.take(QUIET)
    bench.worker.snapshot()
    bench.take(SPIKE + QUIET, after)
    assert bench.kinds() == ["new", "end"]
    bench.restart()  # a crash: no snapshot since
    after = bench.take(SPIKE + QUIET, after)
    assert bench.kinds() == ["new", "end"]
    bench.take(SPIKE + QUIET, after)
    assert bench.kinds() == ["new", "end", "new", "end"]


def test_state_and_score_messages(bench: Bench) -> None:
    assert bench.worker.score_message() is None
    bench.take([0.5] * 5)
    state = bench.worker.describe()
    assert (state["process"], state["alert_id"], state["warmup_s"]) == ("WARMING_UP", None, 6.0)
    bench.take(QUIET + SPIKE, START + 5)
    state = bench.worker.describe()
    assert state["process"] == "FIRING" and state["alert_id"] == bench.messages()[0]["id"]
    assert state["backend"].startswith("onnxruntime ") and state["health"] == []
    score = bench.worker.score_message()
    assert score is not None and score["score"] == score["highest"] == 20.0
    assert bench.worker.score_message() is None
    payload.pack(state)


def test_streams_of_one_bundle_share_a_backend_and_the_budget(tmp_path: Path) -> None:
    bundle = tiny_bundle.make(tmp_path)
    (alone,) = StreamOpener(config(tmp_path, bundle)).open_all()
    first, second = StreamOpener(config(tmp_path, bundle, 2)).open_all()
    assert first.backend is second.backend
    assert first.facts.threshold.value > alone.facts.threshold.value


def test_points_without_a_rate_have_no_time(tmp_path: Path) -> None:
    timing = Timing(SECOND, 8, 1, 2, 1, 4, has_rate=False)
    bundle = tiny_bundle.make(tmp_path, timing)
    (stream,) = StreamOpener(config(tmp_path, bundle)).open_all()
    outbox = Outbox(tmp_path / "o.db", Bounds(), NOW)
    worker = StreamWorker(stream, outbox, tmp_path / "s.npz")
    worker.take(rows(QUIET + SPIKE + QUIET, 0), NOW)
    message = json.loads(outbox.pending()[0].payload)
    assert (message["onset"], message["onset_index"], message["delay_s"]) == (None, 20, None)
    assert message["calibration"]["per"] == "10000pt" and "since point 20" in message["reason"]
    outbox.close()


@pytest.mark.parametrize("letter", ["x", "ä", "\u4e2d", "\U0001f600", '"'])
def test_an_alert_is_never_larger_than_2_kb(tmp_path: Path, letter: str) -> None:
    channels = tuple(Channel(f"{letter * 190}{i}", letter * 40) for i in range(30))
    bundle = tiny_bundle.make(tmp_path, channels=channels, name="n" * 60)
    (tmp_path / "x.csv").write_text(",".join(["0"] * 30))
    text = f'site = "{"s" * 64}"\ndevice = "{"d" * 64}"\n[[streams]]\nname = "{"n" * 64}"\n'
    text += f'bundle = "{bundle}"\nsource = {{ type = "csv", path = "x.csv" }}\n'
    (stream,) = StreamOpener(parse_config(text, tmp_path)).open_all()
    outbox = Outbox(tmp_path / "o.db", Bounds(), NOW)
    worker = StreamWorker(stream, outbox, tmp_path / "s.npz")
    values = np.random.default_rng(0).normal(size=(60, 30)).astype(np.float32)
    values[40:45] *= -1e30
    worker.take(Batch(np.arange(START, START + 60, dtype=np.int64) * SECOND, values), NOW)
    messages = [row.payload for row in outbox.pending()]
    assert len(messages) >= 2 and max(map(len, messages)) <= 2048
    first = json.loads(messages[0])
    assert 2 <= len(first["channels"]) <= 8
    shares = [part["share"] for part in first["channels"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) + first["rest_share"] == pytest.approx(1, abs=0.01)
    outbox.close()


@pytest.mark.parametrize(
    ("openings", "per", "words"),
    [
        (1e-30, "7d", "rarer than once in 10 years"),
        (0.01, "7d", "as high about once in 700 days"),
        (1e-30, "10000pt", "rarer than once in 10 million points"),
        (2.0, "10000pt", "as high about 2 times in 10,000 points"),
    ],
)
def test_how_rare_an_alert_is_stays_within_what_a_tail_can_tell(
    openings: float, per: str, words: str
) -> None:
    capped = payload.rounded(max(openings, payload.RAREST[per]))
    assert payload.how_rare({"openings": capped, "per": per}) == words


def test_a_score_beyond_all_history_is_told_as_such(bench: Bench) -> None:
    bench.take([*QUIET, *[1000.0] * 6])
    (new,) = bench.messages()
    assert new["rarity"] == {"openings": 0.0019165, "per": "7d"}
    assert "(rarer than once in 10 years)" in new["reason"]
