"""``edge-tsad train`` and the refusals of ``export``: what a person types and reads."""

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edge_tsad.cli import main
from edge_tsad.training.model import TrainedModel

QUICK = ("--set", "steps=10", "--set", "window=64", "--set", "batch=4")
FIRST_S = 1_700_000_000


def rows(count: int = 400) -> list[str]:
    return [f"{FIRST_S + i},{np.sin(i / 4):.4f},{np.cos(i / 4):.4f}" for i in range(count)]


def write(path: Path, lines: list[str], header: str = "time,flow,pressure") -> Path:
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def run(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_csv_becomes_a_model_with_its_channels_units_and_rate(tmp_path: Path) -> None:
    history = rows()
    history[100] = f"{FIRST_S + 100},,0.5"
    data, out = write(tmp_path / "pump.csv", history), tmp_path / "pump.safetensors"
    done = run("train", data, "--out", out, "--unit", "flow=l/min", "--max-delay", "10s", *QUICK)
    assert done.exit_code == 0, done.output
    model = TrainedModel.load(out)
    assert [(c.name, c.unit) for c in model.channels] == [("flow", "l/min"), ("pressure", "")]
    assert (model.timing.step_ns, model.timing.delay) == (10**9, 10)
    assert "10 points (10 s)" in done.output
    assert "0.12% of the values" in done.output, "missing values are said"


def test_an_npz_of_many_series_is_asked_for_its_key(tmp_path: Path) -> None:
    values = np.sin(np.arange(400) / 4).astype(np.float32)
    np.savez(tmp_path / "archive.npz", one=values, two=values)
    out = tmp_path / "two.safetensors"
    done = run("train", tmp_path / "archive.npz", "--key", "two", "--out", out, *QUICK)
    assert done.exit_code == 0, done.output
    assert not TrainedModel.load(out).timing.has_rate


def test_what_is_excluded_or_labelled_never_trains_and_is_told(tmp_path: Path) -> None:
    lines = [f"{line},{2 if 40 <= i < 50 else 0}" for i, line in enumerate(rows())]
    for bad in (45, 200, 210, 300):
        lines[bad] = f"{FIRST_S + bad},900,-900,{2 if bad == 45 else 0}"
    data = write(tmp_path / "pump.csv", lines, "time,flow,pressure,broken")
    spans = tmp_path / "spans.txt"
    spans.write_text("# repairs\n200..210\n")
    out = tmp_path / "pump.safetensors"
    chosen = ("--label-column", "broken", "--exclude", f"@{spans}")
    time = "2023-11-14T22:18:20..2023-11-14T23:18:25+01:00"
    done = run("train", data, *chosen, "--exclude", time, "--out", out, *QUICK)
    assert done.exit_code == 0, done.output
    assert f"10 labelled points, 200..210, {time}" in done.output
    model = TrainedModel.load(out)
    assert model.facts["excluded"] == ["200..210", time]
    assert model.facts["missing_share"] == 0
    assert float(model.detector.state_dict()["scale"].max()) < 4, "nothing of them was learned"
    assert all(np.nanmax(block) < 10 for block in model.calibration)


@pytest.mark.parametrize(
    ("lines", "arguments", "sentence"),
    [
        ([*rows()[:9], rows()[7], *rows()[9:]], (), "data row 10 .* is not later"),
        ([*rows()[:9], rows()[8], *rows()[9:]], (), "data row 10 .* is not later"),
        ([*rows()[:9], f"{FIRST_S + 9},inf,0"], (), "'flow' is infinite in data row 10"),
        ([*rows()[:9], f"{FIRST_S + 9},much,0"], (), "'flow' holds 'much' in data row 10"),
        (rows(20), (), "20 points of history are too few"),
        ([], (), "has no rows"),
        ([f"{FIRST_S + i},1,1" for i in range(400)], (), "is constant"),
        (rows(), ("--columns", "flow,heat"), "has no column 'heat'"),
        (rows(), ("--detector", "oracle"), "detector: 'oracle' is unknown; known are coad"),
        (rows(), ("--unit", "heat=K"), "has no channel 'heat'"),
        (rows(), ("--max-delay", "soon"), "is no duration"),
        (rows(), ("--set", "steps"), "is not NAME=VALUE"),
        (rows(), ("--set", "stops=3"), "coad.stops"),
        (rows(), ("--set", "steps=many"), "coad.steps"),
        (rows(), ("--set", "width=true"), "coad.width"),
        (rows(), ("--set", "effort=much"), "effort: is 'much'; a number is needed"),
        (rows(), ("--fast", "--thorough"), "give one of them"),
        (rows(), ("--fast", "--set", "effort=2"), "give one of them"),
        (rows(), ("--set", "window=wide"), "window: 'wide' is no whole number"),
        (rows(), ("--step", "0s"), "is no duration"),
        (rows(), ("--label-column", "broken"), "has no column 'broken'"),
        (rows(), ("--exclude", "yesterday"), "'yesterday' is not FROM..TO"),
        (rows(), ("--exclude", "now..today"), "'now' in 'now..today' is no ISO 8601 time"),
        (rows(), ("--exclude", "80..70"), "'80..70' ends before it begins"),
        (rows(), ("--exclude", "400..450"), "'400..450' holds no row .* 2023-11-14T22:13:20Z"),
        (rows(), ("--exclude", "2023-11-15..2023-11-16"), "holds no row"),
        (rows(), ("--exclude", "0..399"), "leaves nothing of"),
        (rows(), ("--exclude", "5..399"), "5 points of history are too few"),
        (rows(), ("--exclude", "@none.txt"), "--exclude: none.txt cannot be read"),
    ],
)
def test_what_cannot_be_trained_on_is_a_sentence_and_leaves_nothing(
    lines: list[str], arguments: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    data, out = write(tmp_path / "pump.csv", lines), tmp_path / "pump.safetensors"
    done = run("train", data, "--out", out, *arguments)
    assert done.exit_code == 2
    last = done.output.strip().splitlines()[-1]
    assert last.startswith("edge-tsad: ")
    assert re.search(sentence, last), last
    assert list(tmp_path.iterdir()) == [data]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("export", "{folder}/no.safetensors"), "does not exist"),
        (("export", "{folder}/junk", "--name", "my pump"), "is no plain name"),
        (("export", "{folder}/junk", "--version", "new one"), "is no version"),
        (("export", "{folder}/junk"), "is damaged or no model file"),
        (("train", "{folder}/no.csv"), "No such file"),
        (("train", "{folder}/junk", "--out", "{folder}/no/model"), "make it first"),
        (("info", "{folder}/junk"), "is no bundle"),
        (("demo", "--out", "{folder}/junk/demo"), "cannot be made"),
    ],
)
def test_files_that_are_not_there_or_not_what_they_should_be(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "junk").write_text("time,flow\n1,2\n")
    done = run(*(argument.format(folder=tmp_path) for argument in arguments))
    assert done.exit_code == 2
    assert sentence in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["junk"]
