"""Which model file is used: those that compute what they should, and of them the fastest."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest
from oracles import several_files

from edge_tsad.bundle import Bundle, open_bundle
from edge_tsad.config import GatewayConfig, parse_config
from edge_tsad.errors import BackendError, BundleError, ConfigError
from edge_tsad.runtime.apart import choose_apart
from edge_tsad.runtime.backends.onnxruntime import OnnxRuntimeBackend
from edge_tsad.runtime.backends.select import open_file
from edge_tsad.runtime.choices import Choices
from edge_tsad.runtime.choosing import Trial, choose, pick, reopen
from edge_tsad.runtime.gateway import Gateway
from edge_tsad.runtime.opening import StreamOpener

FAST, SLOW, WRONG = several_files.fast(), several_files.slow(), several_files.wrong()


def bundle(folder: Path, **models: bytes) -> Bundle:
    return open_bundle(several_files.make(folder, {f"{k}.onnx": v for k, v in models.items()}))


def timed(*medians: float | None) -> tuple[Trial, ...]:
    return tuple(Trial(f"{i}", "r", "1", 4, 0.5, "", ms) for i, ms in enumerate(medians))


class TestPick:
    @pytest.mark.parametrize(
        ("medians", "place", "why"),
        [
            ((3.0, 2.0, 1.0), 2, "the fastest of 3 that passed their golden windows"),
            ((1.0, 2.0), 0, "the fastest of 2"),
            ((1.05, 1.0), 0, "listed first among those within 10 % of the fastest (5 % slower)"),
            ((1.2, 1.05, 1.0), 1, "listed first among those within 10 %"),
            ((None, 9.0, None), 1, "the only one that passed"),
        ],
    )
    def test_the_fastest_unless_times_are_alike(self, medians, place, why):
        trials = timed(*medians)
        chosen, reason = pick(trials)
        assert chosen is trials[place]
        assert reason.startswith(why)


class TestChoose:
    def test_the_faster_of_two_files_is_used_wherever_it_is_listed(self, tmp_path):
        for models in ({"a": SLOW, "b": FAST}, {"b": FAST, "a": SLOW}):
            choice = choose(bundle(tmp_path, **models))
            assert choice.chosen.path == "b.onnx"
            assert choice.backend.name == "onnxruntime"
            assert "fastest of 2" in choice.why
            assert all(one.median_ms for one in choice.trials if one.path)

    def test_a_file_that_computes_something_else_is_not_used_however_fast(self, tmp_path):
        choice = choose(bundle(tmp_path, wrong=WRONG, slow=SLOW, broken=b"no model"))
        assert choice.chosen.path == "slow.onnx"
        problems = {one.path: one.problem for one in choice.trials if one.path}
        assert "times as far from the float model as allowed" in problems["wrong.onnx"]
        assert "cannot open the model" in problems["broken.onnx"]
        assert not problems["slow.onnx"]
        assert choice.why == "the only one that passed its golden windows"

    def test_a_runtime_without_a_file_says_so(self, tmp_path):
        choice = choose(bundle(tmp_path, a=FAST))
        told = {one.runtime: one.problem for one in choice.trials if not one.path}
        assert told["litert"] == "the bundle has no tflite file"

    def test_only_the_runtime_asked_for_is_tried(self, tmp_path):
        opened = bundle(tmp_path, a=FAST)
        assert len(choose(opened, backend="onnxruntime").trials) == 1
        with pytest.raises(BackendError, match=r"litert.*has no tflite file"):
            choose(opened, backend="litert")
        with pytest.raises(ConfigError, match="backend: 'tensorrt' is unknown"):
            choose(opened, backend="tensorrt")

    def test_nothing_but_wrong_files_is_one_sentence(self, tmp_path):
        with pytest.raises(
            BundleError, match="no model file of the bundle computes here"
        ) as caught:
            choose(bundle(tmp_path, wrong=WRONG))
        assert "wrong.onnx on onnxruntime" in str(caught.value)
        assert "4 golden windows are decided otherwise" in str(caught.value)

    def test_no_runtime_at_all_says_what_to_install(self, tmp_path, monkeypatch):
        monkeypatch.setattr(OnnxRuntimeBackend, "version", classmethod(lambda cls: None))
        with pytest.raises(BackendError, match=r"runs here: .*edge-tsad\[ort\]"):
            choose(bundle(tmp_path, a=FAST))

    def test_what_was_chosen_before_is_only_used_while_it_passes(self, tmp_path):
        opened = bundle(tmp_path, wrong=WRONG, slow=SLOW)
        assert reopen(opened, "slow.onnx", "onnxruntime").chosen.windows == 4
        for path, runtime in (
            ("wrong.onnx", "onnxruntime"),
            ("gone.onnx", "onnxruntime"),
            ("slow.onnx", "litert"),
            ("slow.onnx", "gone"),
        ):
            assert reopen(opened, path, runtime) is None


class TestApart:
    def test_says_the_same_from_a_process_of_its_own(self, tmp_path):
        bundle(tmp_path, wrong=WRONG, a=FAST)
        verdict = choose_apart(tmp_path / "tiny-1.0.0.tsad")
        assert verdict.chosen.path == "a.onnx"
        assert {one.path for one in verdict.trials} >= {"a.onnx", "wrong.onnx"}

    def test_wrong_files_are_told_from_a_missing_runtime(self, tmp_path):
        bundle(tmp_path, wrong=WRONG)
        verdict = choose_apart(tmp_path / "tiny-1.0.0.tsad")
        assert verdict.chosen is None and not verdict.missing
        assert "wrong.onnx" in verdict.problem
        bundle(tmp_path, broken=b"no model")
        assert choose_apart(tmp_path / "tiny-1.0.0.tsad").missing

    def test_a_crash_takes_only_that_process_down(self, tmp_path, monkeypatch):
        script = tmp_path / "python"
        script.write_text("#!/bin/sh\nkill -SEGV $$\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))
        with pytest.raises(BackendError, match=r"crashed in the self-test \(SIGSEGV\)"):
            choose_apart(tmp_path / "x.tsad")


def config(folder: Path, more: str = "") -> GatewayConfig:
    return parse_config(
        f"""
site = "plant"
device = "gw"
data_dir = "data"
[[streams]]
name = "pump"
bundle = "tiny-1.0.0.tsad"
source.type = "stdin"
{more}
""",
        folder,
    )


class TestGateway:
    def test_serves_the_fastest_with_that_files_own_threshold(self, tmp_path):
        bundle(tmp_path, a=SLOW, b=FAST)
        (stream,) = StreamOpener(config(tmp_path)).open_all()
        assert (stream.path, stream.facts.threshold.median) == ("b.onnx", 0.71)
        assert "fastest of 2" in stream.why

    def test_a_file_that_fails_is_named_in_the_log(self, tmp_path, caplog):
        bundle(tmp_path, wrong=WRONG, a=FAST)
        StreamOpener(config(tmp_path)).open_all()
        (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
        assert "wrong.onnx on onnxruntime" in record.getMessage()
        assert "as far from the float model as allowed" in record.getMessage()

    def test_nothing_that_passes_stops_it_before_anything_starts(self, tmp_path):
        bundle(tmp_path, wrong=WRONG)
        with pytest.raises(BundleError, match=r"^streams\[0\] \(pump\): no model file"):
            Gateway(config(tmp_path))
        assert not (tmp_path / "data").exists()

    def test_a_runtime_that_crashes_on_a_file_is_a_sentence(self, tmp_path, monkeypatch):
        bundle(tmp_path, a=SLOW, b=FAST)
        script = tmp_path / "python"
        script.write_text("#!/bin/sh\nkill -SEGV $$\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))
        with pytest.raises(BackendError, match=r"^streams\[0\] \(pump\): .*crashed"):
            StreamOpener(config(tmp_path)).open_all()

    def test_what_is_only_tried_is_not_kept_in_this_process(self, tmp_path, monkeypatch):
        opened: list[str] = []

        def note(name, entry, read, **options):
            opened.append(entry.path)
            return open_file(name, entry, read, **options)

        monkeypatch.setattr("edge_tsad.runtime.choosing.open_file", note)
        Choices().of(bundle(tmp_path, a=SLOW, b=FAST))
        assert opened == ["b.onnx"]

    def test_the_settings_of_a_stream_reach_the_trial(self, tmp_path):
        bundle(tmp_path, a=FAST, b=SLOW)
        with pytest.raises(BackendError, match=r"no model file .* litert"):
            StreamOpener(config(tmp_path, 'backend = "litert"')).open_all()
        (stream,) = StreamOpener(config(tmp_path, 'backend = "onnxruntime"')).open_all()
        assert stream.path == "a.onnx"

    def test_the_next_start_serves_the_same_file_without_timing(self, tmp_path, monkeypatch):
        opened = bundle(tmp_path, a=SLOW, b=FAST)
        (tmp_path / "data").mkdir()
        choices = Choices(tmp_path / "data" / "choices.json")
        assert choices.of(opened).chosen.path == "b.onnx"
        choices.save()
        monkeypatch.setattr("edge_tsad.runtime.choices._anew", None)
        choice = Choices(tmp_path / "data" / "choices.json").of(opened)
        assert choice.chosen.path == "b.onnx"
        assert choice.why == "the fastest when this bundle was first opened here"

    def test_a_bundle_that_is_opened_again_keeps_its_file(self, tmp_path, monkeypatch):
        opened, choices = bundle(tmp_path, a=SLOW, b=FAST), Choices()
        choices.of(opened)
        monkeypatch.setattr("edge_tsad.runtime.choices._anew", None)
        assert choices.of(opened).chosen.path == "b.onnx"

    @pytest.mark.parametrize("change", ["runtime", "threads", "bundle", "damage"])
    def test_it_chooses_anew_when_anything_changes(self, change, tmp_path, monkeypatch):
        opened = bundle(tmp_path, a=SLOW, b=FAST)
        file = tmp_path / "choices.json"
        choices = Choices(file)
        choices.of(opened)
        choices.save()
        (key,) = json.loads(file.read_text())
        file.write_text(json.dumps({key: {"path": "a.onnx", "runtime": "onnxruntime"}}))
        assert Choices(file).of(opened).chosen.path == "a.onnx"
        if change == "runtime":
            monkeypatch.setattr(OnnxRuntimeBackend, "version", classmethod(lambda cls: "99.0"))
        elif change == "bundle":
            opened = bundle(tmp_path, c=SLOW, b=FAST, a=SLOW)
        elif change == "damage":
            file.write_text("[]")
        threads = 2 if change == "threads" else 1
        assert Choices(file).of(opened, threads=threads).chosen.path == "b.onnx"

    def test_a_run_keeps_its_choices(self, tmp_path):
        bundle(tmp_path, a=SLOW, b=FAST)
        gateway = Gateway(config(tmp_path))
        gateway.stop()
        gateway.run()
        (entry,) = json.loads((tmp_path / "data" / "choices.json").read_text()).values()
        assert entry == {"path": "b.onnx", "runtime": "onnxruntime"}
        (stream,) = gateway.stats()["streams"].values()
        assert "fastest of 2" in stream["model_reason"]
