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
        (rows(), ("--set", "window=wide"), "window: 'wide' is no whole number"),
        (rows(), ("--step", "0s"), "is no duration"),
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
