"""A stream that flaps: few alerts, one summary, over restarts too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles import tiny_bundle

from edge_tsad.config import parse_config
from edge_tsad.errors import ConfigError
from edge_tsad.runtime.opening import StreamOpener
from edge_tsad.runtime.outbox import Bounds, Outbox
from edge_tsad.runtime.sources.base import Batch
from edge_tsad.runtime.worker import StreamWorker
from edge_tsad.types import Now

NOW = Now(0, 0, "boot")
START = 1_800_000_000
VALUES = [0.5] * 10 + ([0.5] * 10 + [20.0] * 5) * 20 + [30.0] * 3 + [0.5] * 700


class Bench:
    def __init__(self, folder: Path, alerts: str = "") -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        tiny_bundle.make(folder / "tiny.tsad")
        (folder / "x.csv").write_text("flow,pressure\n")
        self.config = parse_config(
            f"""site = "plant"
device = "gw"
{alerts}
[[streams]]
name = "pump"
bundle = "tiny.tsad"
source = {{ type = "csv", path = "x.csv" }}
health = {{ off = ["STUCK"] }}
""",
            folder,
        )
        self.outbox = Outbox(folder / "outbox.db", Bounds(), NOW)
        self.restart()

    def restart(self) -> None:
        (stream,) = StreamOpener(self.config).open_all()
        self.worker = StreamWorker(stream, self.outbox, self.folder / "pump.npz")

    def take(self, first: int, stop: int) -> None:
        table = np.zeros((stop - first, 2), np.float32)
        table[:, 0] = VALUES[first:stop]
        times = (np.arange(first, stop, dtype=np.int64) + START) * 10**9
        self.worker.take(Batch(times, table), NOW)

    def messages(self) -> list[dict[str, Any]]:
        found = [json.loads(row.payload) for row in self.outbox.pending(limit=1000)]
        for message in found:
            del message["epoch"]
        return found


def test_a_flapping_stream_is_four_alerts_and_a_summary(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.take(0, 175)
    assert "ALERTS_WITHHELD" in bench.worker.all_health() and bench.worker.process == "FIRING"
    bench.take(175, len(VALUES))
    assert not bench.worker.all_health()
    plain = [m for m in bench.messages() if "kind" not in m]
    storm = [m for m in bench.messages() if "kind" in m]
    assert [m["type"] for m in plain] == ["new", "end"] * 4
    assert [m["type"] for m in storm] == ["new", "end"]
    (one,) = {m["id"] for m in storm}
    assert one not in {m["id"] for m in plain}
    assert storm[0]["withheld"] == 1 and storm[1]["withheld"] == 16 and storm[1]["peak"] == 30.0
    assert "16 since 2027-01-15T08:01:20.000Z were not told one by one" in storm[1]["reason"]
    assert all(len(json.dumps(m)) < 2048 for m in storm)
    assert [m["seq"] for m in bench.messages()] == list(range(1, 11))
    bench.outbox.close()


def storms(bench: Bench) -> list[str]:
    return [m["type"] for m in bench.messages() if "kind" in m]


def test_a_silence_keeps_a_summary_back_and_its_end_tells_what_still_holds(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.take(0, 60)
    bench.worker.silence(3600, NOW)
    bench.take(60, 175)  # the storm begins unheard
    assert bench.worker.limits.storm and not storms(bench)
    bench.restart()
    bench.take(175, 180)
    assert not storms(bench)
    bench.worker.silence(0, NOW)
    assert storms(bench) == ["new"]
    bench.take(180, len(VALUES))
    assert storms(bench) == ["new", "end"]
    (one,) = {m["id"] for m in bench.messages() if "kind" in m}
    assert one
    bench.outbox.close()


def test_a_summary_that_was_told_is_ended_in_a_silence_and_an_unheard_one_is_not(
    tmp_path: Path,
) -> None:
    told, unheard = Bench(tmp_path / "told"), Bench(tmp_path / "unheard")
    told.take(0, 175)
    assert storms(told) == ["new"]
    told.worker.silence(3600, NOW)
    told.take(175, len(VALUES))
    assert storms(told) == ["new", "end"]
    unheard.worker.silence(3600, NOW)
    unheard.take(0, len(VALUES))
    unheard.worker.silence(0, NOW)
    assert not unheard.worker.limits.storm and not storms(unheard)
    told.outbox.close()
    unheard.outbox.close()


@pytest.mark.parametrize("step", [1, 7, 33])
@pytest.mark.parametrize("saved", [True, False])
def test_restarts_change_nothing(tmp_path: Path, step: int, saved: bool) -> None:
    whole, cut = Bench(tmp_path / "a"), Bench(tmp_path / "b")
    whole.take(0, len(VALUES))
    for first in range(0, len(VALUES), step):
        cut.take(first, min(first + step, len(VALUES)))
        if saved and first % 3 == 0:
            cut.worker.snapshot()
            cut.restart()
    ids: list[dict[str, str]] = [{}, {}]
    found = [bench.messages() for bench in (whole, cut)]
    for names, messages in zip(ids, found, strict=True):
        for message in messages:
            message["id"] = names.setdefault(message["id"], str(len(names)))
    assert found[0] == found[1]
    whole.outbox.close()
    cut.outbox.close()


def test_the_limits_are_configured(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "[alerts]\nflaps = 50\nper_hour = 50")
    bench.take(0, len(VALUES))
    assert [m["type"] for m in bench.messages()] == ["new", "end"] * 20
    bench.outbox.close()
    with pytest.raises(ConfigError, match=r"alerts\.flaps: 0 is not positive"):
        Bench(tmp_path, "[alerts]\nflaps = 0")
