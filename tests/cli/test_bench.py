"""``edge-tsad bench``: what is typed in, what is entered and what is printed."""

import pytest
from click.testing import CliRunner
from oracles.toy_candidate import planted, write_set

from edge_tsad.cli import main
from edge_tsad.cli.bench import command, listed
from edge_tsad.evaluation.ledger import Ledger


def test_series_may_be_listed_in_a_file(tmp_path):
    path = write_set(tmp_path, "toys", [planted("a")])
    names = tmp_path / "names.txt"
    names.write_text("# two of them\nc\n\na\n")
    assert listed(None, None, [f"@{names}", "b,d"]) == ["c", "a", "b", "d"]
    names.write_text("# none\n")
    for file, sentence in ((names, "has no line"), (tmp_path / "no", "cannot be read: No such")):
        refused = CliRunner().invoke(main, ["bench", str(path), "--series", f"@{file}"])
        assert refused.exit_code == 2
        assert sentence in refused.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--encoder", "nope"], "'nope' is unknown"),
        (["--option", "stpes=2"], "did you mean 'steps'"),
        (["--option", "window=wide"], "is no whole number of points"),
        (["--seed", "-1"], "whole numbers from 0 on"),
        (["--seed", ","], "whole numbers from 0 on"),
        (["--timeout", "nan"], "give seconds"),
        (["--series", ","], "names no series"),
        (["--out", "/proc/nothing"], "cannot be written to"),
    ],
    ids=str,
)
def test_a_mistake_costs_neither_a_fit_nor_a_reported_run(tmp_path, arguments, sentence):
    path = write_set(tmp_path, "toys", [planted("a", half="report")])
    ledger = tmp_path / "ledger.csv"
    where = ["--half", "report", "--ledger", str(ledger)]
    if "--out" not in arguments:
        where += ["--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(main, ["bench", str(path), *where, *arguments])
    assert refused.exit_code == 2
    assert sentence in refused.output
    assert not ledger.exists()


def test_a_reported_half_is_entered_before_anything_is_shown(tmp_path):
    pytest.importorskip("aeon")
    path = write_set(tmp_path, "toys", [planted("a", half="report"), planted("b", half="tune")])
    ledger = tmp_path / "ledger.csv"
    arguments = [str(path), "--detector", "kmeans-ad", "--out", str(tmp_path / "out")]
    arguments += ["--ledger", str(ledger)]
    tuned = CliRunner().invoke(command, arguments)
    assert tuned.exit_code == 0, tuned.output
    assert "VUS-PR" in tuned.stderr
    assert not ledger.exists()
    reported = CliRunner().invoke(command, [*arguments, "--half", "report"])
    assert reported.exit_code == 0, reported.output
    assert "VUS-PR" not in reported.stderr
    assert [row["event"] for row in Ledger(ledger).rows()] == ["begin", "end"]
    assert "kmeans-ad.vus_pr=0." in Ledger(ledger).rows()[1]["figures"]


def test_a_report_names_no_path_of_the_machine(tmp_path):
    pytest.importorskip("aeon")
    path = write_set(tmp_path, "toys", [planted("a")])
    out = tmp_path / "out"
    done = CliRunner().invoke(command, [str(path), "--detector", "kmeans-ad", "--out", str(out)])
    assert done.exit_code == 0, done.output
    report = (out / "report.md").read_text()
    assert str(tmp_path) not in report
    assert report.splitlines()[-1] == done.stdout.splitlines()[-1]
    assert (out / "results.csv").exists()


def test_help_shows_an_example():
    text = CliRunner().invoke(command, ["--help"]).output
    assert "Example:" in text
    assert "edge-tsad bench UCR" in text
