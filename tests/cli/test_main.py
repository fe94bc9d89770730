"""The group: lists without importing, words errors, exits as promised."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from edge_tsad import cli
from edge_tsad.cli import COMMANDS, main
from edge_tsad.errors import DataError


def exit_of(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> tuple[int, str]:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: failing)
    result = CliRunner().invoke(main, ["run"])
    return result.exit_code, result.stderr


def test_an_error_of_the_user_is_one_sentence_and_status_2(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert exit_of(monkeypatch, DataError("x.csv: is empty")) == (2, "edge-tsad: x.csv: is empty\n")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt_is_status_130(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    assert exit_of(monkeypatch, error)[0] == 130


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def failing() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: failing)
    result = CliRunner().invoke(main, ["run"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_what_a_command_returns_is_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        cli.LazyGroup, "get_command", lambda *_: click.Command("x", callback=lambda: 3)
    )
    assert CliRunner().invoke(main, ["run"]).exit_code == 3


def test_an_unknown_command_or_option_is_status_2() -> None:
    for arguments in (["fly"], ["run", "--fly"]):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2 and "No such" in result.stderr
        assert "Traceback" not in result.stderr


def test_help_and_version_import_no_command() -> None:
    code = (
        "import sys\nfrom edge_tsad.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as e:\n    assert e.code == 0\n"
        "bad = {m for m in sys.modules if m.startswith('edge_tsad.cli.')}\n"
        "bad |= {'torch', 'numpy', 'paho', 'edge_tsad.runtime'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    for name, entry in COMMANDS.items():
        assert f"  {name} " in result.stdout and entry.help in " ".join(result.stdout.split())


@pytest.mark.parametrize("name", ["run", "alerts", "check", "doctor", "record", "labels"])
def test_gateway_commands_reach_nothing_of_the_workstation(name: str) -> None:
    heavy = "{'torch', 'export', 'pandas', 'scipy', 'rich', 'onnx', 'edge_tsad.training'}"
    module = COMMANDS[name].target.partition(":")[0]
    code = f"import sys, {module}\nassert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_its_help_has_an_example(name: str) -> None:
    module = COMMANDS[name].target.partition(":")[0]
    assert importlib.util.find_spec(module), f"{name} is listed and not there"
    shown = CliRunner().invoke(main, [name, "--help"])
    assert shown.exit_code == 0 and "xample" in shown.stdout
