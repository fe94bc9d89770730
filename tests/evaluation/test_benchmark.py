import csv
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner
from oracles.toy_candidate import Broken, Distance, Telling, planted, write_set

from edge_tsad.cli import main
from edge_tsad.cli.bench import command
from edge_tsad.errors import ConfigError, DataError
from edge_tsad.evaluation.benchmark import Benchmark, Settings
from edge_tsad.evaluation.engines import ENGINES
from edge_tsad.evaluation.labelled import LabelledSet
from edge_tsad.evaluation.report import last_line, markdown, write_csv
from edge_tsad.evaluation.shipped import choose_candidates
from edge_tsad.evaluation.store import Store
from edge_tsad.evaluation.summary import difference, totals


def toys(count=3, **facts):
    return LabelledSet("toys", tuple(planted(f"s{i}", seed=i, **facts) for i in range(count)))


def stripped(records):
    timed = ("fit_s", "points_per_s")
    return [{k: v for k, v in record.items() if k not in timed} for record in records]


def test_results_are_kept_and_found_again(tmp_path):
    first, second = Distance(), Distance()
    settings = Settings(seeds=(0, 1))
    records = Benchmark(toys(), [first], settings, tmp_path).run()
    told = []
    again = Benchmark(toys(), [second], settings, tmp_path).run(lambda *p: told.append(p))
    assert again == records
    assert len(records) == 6
    assert len(first.seen) == 6
    assert not second.seen
    assert not told


def test_a_result_is_used_only_for_the_very_same_task(tmp_path):
    base = Benchmark(toys(1), [Distance()], Settings(), tmp_path).tasks[0].key
    other = toys(1)
    other.series[0].values[3] += 1
    keys = {
        base,
        Benchmark(other, [Distance()], Settings(), tmp_path).tasks[0].key,
        Benchmark(toys(1), [Broken("nan")], Settings(seeds=(2,)), tmp_path).tasks[0].key,
        Benchmark(toys(1), [Distance()], Settings(board=True), tmp_path).tasks[0].key,
        Benchmark(toys(1), [Distance()], Settings(timeout_s=9), tmp_path).tasks[0].key,
    }
    assert len(keys) == 5
    assert Benchmark(toys(1), [Distance()], Settings(jobs=2), tmp_path).tasks[0].key == base


def test_a_line_that_a_kill_cut_short_is_computed_again(tmp_path):
    records = Benchmark(toys(), [Distance()], Settings(), tmp_path).run()
    path = tmp_path / "results.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    again = Benchmark(toys(), [Distance()], Settings(), tmp_path).run()
    assert stripped(again) == stripped(records)
    assert len(path.read_text().splitlines()) == 3
    assert all(json.loads(line) for line in path.read_text().splitlines())
    path.write_bytes(b"nonsense\n" + whole)
    with pytest.raises(DataError, match="line 1 is no result"):
        Store(path)


@pytest.mark.parametrize("end", [b"nonsense\n", b"\xff\xfe", b'{"key": 3', b"\0\0\0\n"], ids=str)
def test_any_last_line_that_is_no_result_is_dropped_for_good(tmp_path, end):
    records = Benchmark(toys(), [Distance()], Settings(), tmp_path).run()
    path = tmp_path / "results.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + end)
    for _ in range(2):
        again = Benchmark(toys(), [Distance()], Settings(), tmp_path).run()
        assert stripped(again) == stripped(records)
    assert len(path.read_bytes().splitlines()) == 3


def test_what_is_corrected_about_a_series_reaches_results_that_are_there(tmp_path):
    Benchmark(toys(), [Distance()], Settings(), tmp_path).run()
    told = []
    again = Benchmark(toys(recording="one"), [Distance()], Settings(), tmp_path)
    assert {r["recording"] for r in again.run(lambda *p: told.append(p))} == {"one"}
    assert not told


def test_what_is_asked_for_twice_is_measured_once(tmp_path):
    candidate = Distance()
    assert len(Benchmark(toys(1), [candidate], Settings(seeds=(0, 0)), tmp_path).run()) == 1
    assert len(candidate.seen) == 1


def test_a_run_that_was_killed_goes_on(tmp_path):
    pytest.importorskip("aeon")
    names = [f"s{i}" for i in range(5)]
    path = write_set(tmp_path, "toys", [planted(name, seed=i) for i, name in enumerate(names)])
    out = tmp_path / "out"
    arguments = [str(path), "--detector", "kmeans-ad", "--out", str(out)]
    call = "from edge_tsad.cli.bench import command; command()"
    process = subprocess.Popen([sys.executable, "-c", call, *arguments], stderr=subprocess.DEVNULL)
    results = out / "results.jsonl"
    while process.poll() is None and not (results.exists() and b"\n" in results.read_bytes()):
        time.sleep(0.001)
    process.kill()
    process.wait()
    kept = [line for line in results.read_text().splitlines(keepends=True) if line.endswith("\n")]
    assert kept
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1].endswith("n=5")
    lines = results.read_text().splitlines(keepends=True)
    assert len(lines) == 5
    assert lines[: len(kept)] == kept
    assert sorted(json.loads(line)["series"] for line in lines) == names


@pytest.mark.filterwarnings("default")  # what distributed leaves open is its own
@pytest.mark.parametrize("engine", ENGINES)
def test_workers_give_what_one_process_gives_and_a_dead_one_is_a_miss(tmp_path, engine):
    alone = Benchmark(toys(2), [Distance()], Settings(), tmp_path / "1").run()
    settings = Settings(jobs=2, engine=engine)
    both = [Distance(), Broken("dies")]
    records = Benchmark(toys(2), both, settings, tmp_path / "2").run()
    assert stripped(r for r in records if r["candidate"] == "distance") == stripped(alone)
    dead = [record for record in records if record["candidate"] == "dies"]
    assert [record["status"] for record in dead] == ["miss", "miss"]
    assert "its process ended" in dead[0]["reason"]


@pytest.mark.filterwarnings("default")  # what distributed leaves open is its own
def test_workers_are_other_processes_whatever_the_engine(tmp_path):
    pytest.importorskip("distributed")
    for engine in ENGINES:
        settings = Settings(jobs=2, engine=engine)
        records = Benchmark(toys(4), [Telling()], settings, tmp_path / engine).run()
        assert {record["pid"] for record in records} & {os.getpid()} == set()
        assert all(("distributed" in record["modules"]) == (engine == "dask") for record in records)


def test_an_engine_that_is_not_installed_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    path = write_set(tmp_path, "toys", [planted("a")])
    refused = CliRunner().invoke(main, ["bench", str(path), "--engine", "dask"])
    assert refused.exit_code == 2
    assert 'pip install "edge-tsad[dask]"' in refused.output


def test_totals_count_misses_and_intervals_are_over_recordings(tmp_path):
    chosen = LabelledSet("toys", (*toys(3).series, planted("t", recording="s0")))
    records = Benchmark(chosen, [Distance(), Broken("raises")], Settings(), tmp_path).run()
    mine, broken = totals(records)
    assert mine.means["acc1"].value == 1
    assert mine.means["vus_pr"].low <= mine.means["vus_pr"].value <= mine.means["vus_pr"].high
    assert (mine.series, mine.misses, broken.series, broken.misses) == (4, 0, 4, 4)
    assert broken.means["acc1"].value == 0
    gap = difference(records, "distance", "raises", "vus_pr")
    assert gap.value == pytest.approx(mine.means["vus_pr"].value)
    assert gap.low > 0
    assert mine.alarms.stated == 4
    assert difference(records, "distance", "nobody", "acc1") is None


def test_paired_differences_are_taken_series_by_series():
    def record(candidate, series, value):
        facts = {"candidate": candidate, "series": series, "recording": series, "seed": 0}
        return facts | {"acc1": value, "vus_pr": value, "status": "ok"}

    names = [f"s{i}" for i in range(30)]
    values = np.linspace(0.1, 0.7, 30)
    pairs = zip(names, values, strict=True)
    records = [r for s, v in pairs for r in (record("a", s, v + 0.2), record("b", s, v))]
    gap = difference(records, "a", "b", "vus_pr")
    assert gap.low == pytest.approx(0.2)
    assert gap.high == pytest.approx(0.2)


def test_reports_hold_every_section_and_end_with_one_line(tmp_path):
    empty = planted("normal")
    empty.labels[:] = 0
    chosen = LabelledSet("toys", (*toys(2).series, empty))
    candidates = [Distance(), Broken("nan")]
    records = Benchmark(chosen, candidates, Settings((0, 1), board=True), tmp_path).run()
    text = markdown("Toys", records, {"x": "has no regions"}, ["- a note"])
    assert text.splitlines()[-1] == last_line(records)
    assert last_line(records).startswith("Acc@1 1.000 VUS-PR 0.")
    assert last_line(records).endswith(" n=2")
    for word in ("Accuracy", "Seeds", "Alarms", "Cost", "board", "Misses", "Left out: 1 series"):
        assert f"## {word}" in text or word in text
    assert "1 series with nothing to find" in text
    assert "oracle threshold" in text
    write_csv(tmp_path / "r.csv", records)
    with (tmp_path / "r.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(records)


def test_alarms_are_told_for_each_state_of_calibration(tmp_path):
    def record(series, state, false, **promise):
        facts = {"candidate": "a", "series": series, "recording": series, "seed": 0}
        facts |= {"status": "normal", "sees_future": False}
        facts |= {"openings_false": false, "points_normal": 10_000, "calibration": state}
        return facts | {"false_per_10k": false} | promise

    promised = {"promised_per_10k": 2.0, "promised_low": 1.0, "promised_high": 3.0}
    records = [
        record("s1", "CALIBRATED", 2, inside=1, inside_count=1, **promised),
        record("s2", "CALIBRATED", 4, inside=0, inside_count=1, **promised),
        record("s3", "CALIBRATED", 0, inside=0, inside_count=0, **promised),
        record("s4", "UNCALIBRATED", 9),
    ]
    (total,) = totals(records)
    assert (total.alarms.runs, total.alarms.false, total.alarms.stated) == (4, 15, 3)
    calibrated, without = total.states["CALIBRATED"], total.states["UNCALIBRATED"]
    assert (calibrated.runs, calibrated.inside, calibrated.inside_count) == (3, 1, 2)
    assert calibrated.not_above == 2
    assert calibrated.rate == pytest.approx(2)
    assert calibrated.promised == pytest.approx(2)
    assert (without.runs, without.stated) == (1, 0)


def test_candidates_are_chosen_by_name():
    names = [c.name for c in choose_candidates(["coad"], peers=True)]
    assert names[0] == "coad"
    assert {"matrix-profile", "kmeans-ad"} <= set(names)
    variants = choose_candidates(["coad"], encoders=["conv", "gru"], options=["steps=3", "x=y"])
    assert [c.name for c in variants] == [
        "coad[encoder=conv,steps=3,x=y]",
        "coad[encoder=gru,steps=3,x=y]",
    ]
    paced = choose_candidates(["coad", "cmdml"], efforts=[0.25, 3.0])
    assert [c.name for c in paced if c.name.startswith("coad")] == [
        "coad",
        "coad[effort=0.25]",
        "coad[effort=3.0]",
    ]
    once = choose_candidates(["coad"], encoders=["conv", "conv"])
    assert len(once) == 1
    fast = choose_candidates(["coad"], options=["effort=0.25"], efforts=[0.25])
    assert len(fast) == 1
    with pytest.raises(ConfigError, match="'nobody' is unknown"):
        choose_candidates(["nobody"])
    with pytest.raises(ConfigError, match="is not KEY=VALUE"):
        choose_candidates(["coad"], options=["steps"])
    with pytest.raises(ConfigError, match="none is named"):
        choose_candidates([])
