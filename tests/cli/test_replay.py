"""The raw points of an alert, fetched by its id, give its score once more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from gateway.test_worker import QUIET, SPIKE, START, Bench, rows
from oracles import tiny_bundle

from edge_tsad.cli import main
from edge_tsad.runtime import evidence
from edge_tsad.types import Now

NOW = Now(0, 0, "boot")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "state").mkdir()
    made = Bench(tmp_path)
    made.folder = tmp_path / "state"
    (made.folder / "x.csv").write_text("flow,pressure\n")
    made.restart()
    return made


def replay(*arguments: str) -> dict[str, object]:
    done = CliRunner().invoke(main, ["replay", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("step", [1, 5, 1000])
def test_the_same_score_for_the_same_points(bench: Bench, tmp_path: Path, step: int) -> None:
    noise = list(np.abs(np.random.default_rng(3).normal(size=30)) * 0.5)
    values = [*noise, 20.0, 24.5, *SPIKE, *QUIET]
    for i in range(0, len(values), step):
        bench.worker.take(rows(values[i : i + step], START + i), NOW)
    new, end = bench.messages()
    answer = replay(new["id"], "--data", str(tmp_path), "--bundle", str(bench.bundle))
    assert answer["recorded"] == answer["replayed"] == end["peak"] == 24.5
    assert answer["same_bundle"] and answer["peak_index"] == end["peak_index"]
    assert answer["channels"][0] == {  # type: ignore[index]
        "name": "flow", "score": 24.5, "seen": 24.5, "expected": 0.0,
    }  # fmt: skip
    bench.outbox.close()


def test_a_file_that_was_copied_and_another_bundle(bench: Bench, tmp_path: Path) -> None:
    bench.take([*QUIET, *SPIKE, *QUIET])
    (new, _) = bench.messages()
    (file,) = (tmp_path / "state").glob("*.alerts/*.npz")
    copy = file.rename(tmp_path / file.name)
    other = tiny_bundle.make(tmp_path / "other.tsad", name="other")
    assert not replay(str(copy), "--bundle", str(other))["same_bundle"]
    done = CliRunner().invoke(main, ["replay", str(copy), "--bundle", str(bench.bundle)])
    assert new["id"] in done.stdout and "the bundle that raised it" in done.stdout
    bench.outbox.close()


def test_the_newest_alerts_stay(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "MOST_ALERTS", 2)
    bench.take([*QUIET, *([*SPIKE, *QUIET] * 4)])
    ids = [m["id"] for m in bench.messages() if m["type"] == "new"]
    kept = {path.stem for path in (tmp_path / "state").glob("*.alerts/*.npz")}
    assert kept == set(ids[-2:])
    done = CliRunner().invoke(
        main, ["replay", ids[0], "--data", str(tmp_path), "--bundle", str(bench.bundle)]
    )
    assert done.exit_code == 2 and f"keeps no points of the alert {ids[0]}; it keeps" in done.stderr
    bench.outbox.close()


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    bundle = tiny_bundle.make(tmp_path)
    (tmp_path / "junk.npz").write_bytes(b"junk")
    for arguments, sentence in (
        (["nothing"], "nothing: is no file; give --data"),
        ([str(tmp_path / "junk.npz")], "holds no points of an alert"),
    ):
        done = CliRunner().invoke(main, ["replay", *arguments, "--bundle", str(bundle)])
        assert done.exit_code == 2 and sentence in done.stderr
