from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from oracles import bundles, several_files
from oracles.several_files import fast, slow, wrong

from edge_tsad.bundle import DetectorInfo, open_bundle, write_bundle, write_signature
from edge_tsad.cli.info import command
from edge_tsad.errors import BundleError, ConfigError, SignatureError
from edge_tsad.keys import SigningKey
from edge_tsad.signing import KeySet, sign_keys, sign_manifest
from edge_tsad.types import Timing


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path, bundles.manifest(), bundles.content())


def info(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_says_what_a_person_would_ask(bundle: Path) -> None:
    result = info(bundle)
    assert result.exit_code == 0, result.exception
    shown = " ".join(result.stdout.split())
    for phrase in (
        "pump 1.2",
        open_bundle(bundle).digest,
        "signature unsigned",
        "counter 7; once committed, none below 3",
        'coad patch=8 rate=0.5',
        "flow m³/h max 2 cells",
        "delay 5 5 s",
        "alert cooldown 60 1 min",
        "model/a-int8.tflite tflite dynamic 180 - - litert >= 2.0",
        "1/7d",
        "EXTRAPOLATED",
        "golden windows 4 in golden.npz, from seed 0",
        "card.md in the bundle",
        "points 50000",
        "! two gaps were skipped",
        "! not signed",
    ):  # fmt: skip
        assert phrase in shown


def test_classes_of_behaviour_are_named(tmp_path: Path) -> None:
    detector = DetectorInfo("cmdml", {"classes": 2, "behaviours": ["60% of the history", "x high"]})
    made = write_bundle(tmp_path, bundles.manifest(detector=detector), bundles.content())
    lines = [line.strip() for line in info(made, "--no-try").stdout.splitlines()]
    assert "class 0: 60% of the history" in lines and "class 1: x high" in lines
    assert "detector" in " ".join(lines) and "behaviours" not in " ".join(lines)


def test_json_has_the_same_facts(bundle: Path) -> None:
    facts = json.loads(info(bundle, "--json").stdout)
    assert facts["name"] == "pump"
    assert facts["timing"]["window"] == {"points": 16, "seconds": 16.0}
    assert [entry["budget"] for entry in facts["files"][0]["budgets"]] == ["1/1d", "1/7d", "1/30d"]
    assert facts["signature"] == {"state": "unsigned", "keys": []}


def test_budgets_can_be_chosen(bundle: Path) -> None:
    facts = json.loads(info(bundle, "--json", "--budget", "2/24h").stdout)
    (entry,) = facts["files"][0]["budgets"]
    assert entry["budget"] == "2/24h"
    assert isinstance(info(bundle, "--budget", "often").exception, ConfigError)


def test_a_short_history_says_how_much_more_is_needed(tmp_path: Path) -> None:
    files = tuple(
        bundles.model_file(path, data, tail=bundles.tail(points=100, peaks=2))
        for path, data in bundles.MODELS.items()
    )
    path = write_bundle(tmp_path, bundles.manifest(files=files), bundles.content())
    shown = info(path).stdout
    assert "CALIBRATED from 100 points (1.667 min) of history;" in shown
    assert "more would calibrate it" in shown


def test_data_without_a_rate_is_told_in_points(tmp_path: Path) -> None:
    timing = Timing(10**9, 16, 4, 5, 3, 8, has_rate=False)
    path = write_bundle(tmp_path, bundles.manifest(timing=timing), bundles.content())
    shown = info(path).stdout
    assert "1/10000pt" in shown
    assert "The data came without time stamps" in shown
    assert json.loads(info(path, "--json").stdout)["timing"]["step_seconds"] is None


def test_says_which_file_is_used_here_and_why(tmp_path: Path) -> None:
    models = {"wrong.onnx": wrong(), "slow.onnx": slow(), "fast.onnx": fast()}
    path = several_files.make(tmp_path, models)
    shown = info(path).stdout
    section = shown.partition("On this machine")[2].splitlines()
    lines = {line.split()[0]: line for line in section if " onnxruntime 1" in line}
    assert "used" in lines["fast.onnx"] and "pass, worst at 0 of its bound" in lines["fast.onnx"]
    assert "used" not in lines["slow.onnx"] and "pass" in lines["slow.onnx"]
    assert "as far from the float model as allowed" in lines["wrong.onnx"]
    assert "fast.onnx on onnxruntime is used: the fastest of 2 that passed" in shown
    facts = json.loads(info(path, "--json").stdout)["here"]
    assert facts["chosen"]["path"] == "fast.onnx"
    times = {row["path"]: row["median_ms"] for row in facts["trials"]}
    assert times["fast.onnx"] < times["slow.onnx"] and times["wrong.onnx"] is None
    assert "On this machine" not in info(path, "--no-try").stdout


def test_a_bundle_that_cannot_run_here_is_shown_all_the_same(tmp_path: Path) -> None:
    result = info(several_files.make(tmp_path, {"wrong.onnx": wrong()}))
    assert result.exit_code == 0
    assert "! no model file of the bundle computes here what it should" in result.stdout


def test_the_card_is_printed(bundle: Path) -> None:
    assert info(bundle, "--card").stdout == "# Card\n"


def test_nothing_in_a_bundle_commands_the_terminal(tmp_path: Path) -> None:
    manifest = bundles.manifest(
        detector=DetectorInfo("\x1b[2J", {"\x9b": "\x1b]0;x\x07"}),
        training={"\x1b": "\x9b2J\u202e", "warnings": ["\x1b[31m"]},
    )
    path = write_bundle(tmp_path, manifest, bundles.content())
    for arguments in ((path,), (path, "--json")):
        shown = info(*arguments).stdout
        assert all(line.isprintable() for line in shown.splitlines())


def test_signatures_are_told_apart(bundle: Path, tmp_path: Path) -> None:
    key, stranger = SigningKey.new(), SigningKey.new()
    opened = open_bundle(bundle)
    write_signature(bundle, opened, sign_manifest(opened.manifest_bytes, key))
    for name, one in {"good": key, "bad": stranger}.items():
        (tmp_path / name).write_bytes(sign_keys(KeySet(1, (one.public(name),)), one))
    identity = key.public("good").id
    assert f"not checked, by key {identity}; check with --keys" in info(bundle).stdout
    assert f"verified, by key {identity}" in info(bundle, "--keys", tmp_path / "good").stdout
    refused = info(bundle, "--keys", tmp_path / "bad")
    assert isinstance(refused.exception, SignatureError)
    assert refused.stdout == ""


def test_a_file_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tsad").write_text("hello")
    result = info(tmp_path / "x.tsad")
    assert isinstance(result.exception, BundleError)
    assert "is no bundle" in str(result.exception)


def test_the_help_has_an_example() -> None:
    assert "\n  edge-tsad info pump-1.0.tsad\n" in info("--help").stdout.replace("    ", "  ")
