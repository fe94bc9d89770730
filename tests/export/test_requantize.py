"""More files for a bundle, and data that do not suit."""

from __future__ import annotations

import dataclasses
import resource

import numpy as np
import pytest
from oracles import toy_files

from edge_tsad.bundle import open_bundle, self_test
from edge_tsad.bundle.archive import write_bundle
from edge_tsad.errors import BundleError, DataError, ExportError
from edge_tsad.registry import BACKENDS
from edge_tsad.runtime.threshold import Budget, Threshold
from edge_tsad.training.series import Series
from edge_tsad.types import Channel
from export.build import export_bundle
from export.calibration import calibration_of
from export.requantize import next_version, quantize_bundle
from export.tail import ScoreMap, mapped_tail

SECOND = 1_000_000_000
CHANNELS = toy_files.model().channels


def series(values, names=("pressure", "flow"), has_rate=True):
    times = np.arange(len(values), dtype=np.int64) * SECOND
    channels = tuple(Channel(name) for name in names)
    return Series(times, values, channels, SECOND, has_rate, name="may.csv")


@pytest.fixture(scope="module")
def data():
    return series(toy_files.held_out(2000).values)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "toy-1.0.0.tsad"
    original = toy_files.original("onnx")
    with pytest.MonkeyPatch.context() as patch:
        exporter = type(toy_files.EXPORTERS["onnx"])
        patch.setattr(exporter, "convert", lambda self, detector: original)
        export_bundle(
            toy_files.model(),
            path,
            name="toy",
            version="1.0.0",
            counter=4,
            formats=["onnx"],
            schemes=["none"],
        )
    return path


class TestQuantize:
    def test_adds_verified_files_and_keeps_the_others(self, bundle, data, tmp_path):
        out = tmp_path / "new.tsad"
        before = bundle.read_bytes()
        manifest = quantize_bundle(bundle, out, data=data, formats=["onnx"], schemes=["fp16"])
        assert bundle.read_bytes() == before
        assert (manifest.version, manifest.counter) == ("1.0.1", 5)
        new, old = open_bundle(out), open_bundle(bundle)
        assert new.signature is None
        assert [file.scheme for file in new.manifest.files] == ["none", "fp16"]
        assert new.read("model/toy-fp32.onnx") == old.read("model/toy-fp32.onnx")
        assert new.read("golden.npz") == old.read("golden.npz")
        added = new.model("onnx", "fp16")
        assert added.parity["alerts"]["f1"] >= 0.99
        backend = BACKENDS["onnxruntime"](new.read(added.path), shape=(64, 2))
        assert self_test(new, added, backend).passed
        assert "toy-fp16.onnx" in new.read(new.manifest.card.path).decode()

    def test_takes_the_formats_that_the_bundle_has(self, bundle, data, tmp_path):
        manifest = quantize_bundle(bundle, tmp_path / "new.tsad", data=data, schemes=["fp16"])
        assert {file.format for file in manifest.files} == {"onnx"}
        without = tmp_path / "without.tsad"
        first, *rest = manifest.files
        bounds = {file.path: manifest.golden.bounds[file.path] for file in rest}
        golden = dataclasses.replace(manifest.golden, bounds=bounds)
        half = dataclasses.replace(manifest, files=tuple(rest), golden=golden)
        there = open_bundle(tmp_path / "new.tsad")
        members = {
            path: there.read(path)
            for path in there.members
            if path not in {first.path, "manifest.json"}
        }
        write_bundle(without, half, members)
        with pytest.raises(BundleError, match=r"has no float32 file, .* `--quantize none`"):
            quantize_bundle(without, tmp_path / "x.tsad", data=data, schemes=["fp16"])
        assert not (tmp_path / "x.tsad").exists()

    def test_a_refused_file_leaves_nothing(self, bundle, data, tmp_path, monkeypatch):
        exporter = type(toy_files.EXPORTERS["onnx"])
        quantize = exporter.quantize

        def broken(self, model, *rest):
            import onnx
            from onnx import numpy_helper

            proto = onnx.load_model_from_string(quantize(self, model, *rest))
            for tensor in proto.graph.initializer:
                if tensor.data_type == onnx.TensorProto.FLOAT16:
                    values = numpy_helper.to_array(tensor) * np.float16(1.5)
                    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            return proto.SerializeToString()

        monkeypatch.setattr(exporter, "quantize", broken)
        with pytest.raises(ExportError, match=r"^toy-fp16\.onnx: refused"):
            quantize_bundle(
                bundle, tmp_path / "new.tsad", data=data, formats=["onnx"], schemes=["fp16"]
            )
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_leaves_nothing(self, bundle, data, tmp_path):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        try:
            with pytest.raises(BundleError, match=r"new\.tsad: .*file too large"):
                quantize_bundle(
                    bundle, tmp_path / "new.tsad", data=data, formats=["onnx"], schemes=["fp16"]
                )
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert list(tmp_path.iterdir()) == []

    def test_a_format_without_a_float_file_is_said(self, bundle, data, tmp_path):
        with pytest.raises(
            BundleError, match=r"no float32 tflite file, .* `--format tflite --quantize none`"
        ):
            quantize_bundle(
                bundle, tmp_path / "new.tsad", data=data, formats=["tflite"], schemes=["fp16"]
            )

    def test_float_alone_is_nothing_to_do(self, bundle, data, tmp_path):
        with pytest.raises(ExportError, match="name another scheme"):
            quantize_bundle(
                bundle, tmp_path / "new.tsad", data=data, formats=["onnx"], schemes=["none"]
            )

    @pytest.mark.parametrize(
        ("old", "new"), [("1.0.9", "1.0.10"), ("2", "3"), ("1.0-beta", "1.0-beta.1")]
    )
    def test_versions_are_counted_up(self, old, new):
        assert next_version(old) == new


class TestCalibrationData:
    timing = toy_files.detector().timing

    def test_columns_may_come_in_any_order(self, data):
        turned = series(data.values[:, ::-1], ("flow", "pressure"))
        straight, held_out = calibration_of(data, CHANNELS, self.timing)
        other, again = calibration_of(turned, CHANNELS, self.timing)
        assert np.array_equal(straight.window, other.window)
        assert np.array_equal(held_out.values, again.values)

    def test_windows_hold_the_extremes_of_what_sets_ranges(self, data):
        values = data.values.copy()
        values[300, 0], values[500, 1] = 99, -99
        windows, _ = calibration_of(series(values), CHANNELS, self.timing)
        assert windows.window[..., 0].max() == 99
        assert windows.window[..., 1].min() == -99

    def test_the_second_half_is_held_out(self, data):
        windows, held_out = calibration_of(data, CHANNELS, self.timing)
        assert np.array_equal(held_out.values, data.values[1000:])
        assert np.isin(windows.window[..., 0], data.values[:1000, 0]).all()

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda data: data.part(0, 100), "100 points .* at least 128 are needed"),
            (lambda data: data.part(0, 3), "3 points without"),
            (lambda data: series(np.full((500, 2), 7, np.float32)), "is constant"),
            (
                lambda data: series(data.values, ("pressure", "speed")),
                "no channel 'flow'; the model's channels are pressure, flow, and there are",
            ),
            (lambda data: dataclasses.replace(data, has_rate=False), "has no time stamps"),
        ],
    )
    def test_what_does_not_suit_is_said_in_a_sentence(self, data, change, words):
        with pytest.raises(DataError, match=f"^may.csv: .*{words}") as error:
            calibration_of(change(data), CHANNELS, self.timing)
        assert "\n" not in str(error.value)

    def test_a_long_gap_divides(self, data):
        values = data.values.copy()
        values[100::100] = np.nan
        calibration_of(series(values), CHANNELS, self.timing)
        values[:1900][np.arange(1900) % 200 > 100] = np.nan
        with pytest.raises(DataError, match="without a long gap are too few"):
            calibration_of(series(values[:1800]), CHANNELS, self.timing)


class TestMappedTail:
    tail = toy_files.model().tail

    def test_of_equal_scores_is_the_same(self):
        score = np.linspace(0, 2, 1000, dtype=np.float32)
        budget = Budget(1, 10_000)
        same = mapped_tail(self.tail, ScoreMap(score, score))
        before, after = (Threshold.from_tail(t, budget).value for t in (self.tail, same))
        assert after == pytest.approx(before, rel=1e-4)

    def test_follows_a_gain(self):
        score = np.linspace(0, 2, 1000, dtype=np.float32)
        budget = Budget(1, 10_000)
        doubled = mapped_tail(self.tail, ScoreMap(score, 2 * score))
        before, after = (Threshold.from_tail(t, budget).value for t in (self.tail, doubled))
        assert after == pytest.approx(2 * before, rel=0.01)
