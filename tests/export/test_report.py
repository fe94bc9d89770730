"""The report: everything promised is drawn, it fetches nothing, and it gives little away."""

from __future__ import annotations

import dataclasses
import platform
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from click.testing import CliRunner
from oracles import bundles, toy_files

from edge_tsad.bundle import open_bundle
from edge_tsad.cli import main
from edge_tsad.errors import ExportError
from edge_tsad.registry import BACKENDS
from edge_tsad.training.model import TrainedModel
from export.build import export_bundle
from export.onnx import OnnxExporter
from export.report import gather, report_html
from export.report.figures import MOST_BINS, MOST_CHANNELS, dots, envelope

CHANNEL = "a <script>&$x_$ b"
SECTIONS = [
    "Training", "Scores and threshold", "Expected against seen", "Quantization parity", "Limits",
]  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return toy_files.model(CHANNEL)


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "toy.tsad"
    original = toy_files.original("onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnnxExporter, "convert", lambda self, detector: original)
        export_bundle(model, path, formats=["onnx"])
    return open_bundle(path)


@pytest.fixture(scope="module")
def facts(bundle, model):
    return gather(bundle, model)


@pytest.fixture(scope="module")
def page(facts):
    return report_html(facts).decode()


class Elements(HTMLParser):
    """Every tag with its attributes, and the text outside style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag

    def handle_data(self, data):
        self.words.append(data)


def drawings(page: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", page, re.DOTALL)


class TestOffline:
    def test_there_is_nothing_to_fetch_and_nothing_that_runs(self, page):
        found = Elements(page)
        assert not {"script", "link", "img", "iframe", "object", "image"} & {
            t for t, _ in found.tags
        }
        for _, attributes in found.tags:
            for name, value in attributes.items():
                assert not name.startswith("on"), name
                if name in ("href", "xlink:href", "src"):
                    assert value and value.startswith("#"), value
        assert "//" not in page and "@import" not in page
        assert not re.search(r"url\((?!#)", page)
        assert "default-src 'none'" in page

    def test_what_drawings_point_to_is_in_them(self, page):
        for drawn in drawings(page):
            there = set(re.findall(r' id="([^"]+)"', drawn))
            wanted = set(re.findall(r'(?:href="|url\()#([^")]+)', drawn))
            assert wanted <= there

    def test_drawings_are_well_formed(self, page):
        assert len(drawings(page)) == 6 + 2
        for drawn in drawings(page):
            ET.fromstring(drawn.replace("xlink:", ""))


class TestContent:
    def test_every_section_is_there(self, page):
        assert re.findall("<h2>(.*?)</h2>", page) == SECTIONS

    def test_each_plot_shows_what_it_should(self, page):
        loss, scores, openings, normal, odd, alerts, exact, quantized = drawings(page)
        assert ">loss<" in loss
        for words in (">threshold<", ">median<", ">point of the history<"):
            assert words in scores
        for words in (">90 % interval<", ">fitted tail<", ">budget<", ">seen in calibration<"):
            assert words in openings
        for drawn in (normal, odd):
            assert ">expected<" in drawn and ">seen<" in drawn and ">flow<" in drawn
        for words in (">both<", ">the detector alone<", ">the file alone<"):
            assert words in alerts
        for drawn in (exact, quantized):
            assert ">bound<" in drawn and ">score of the file<" in drawn

    def test_the_threshold_is_shown_with_its_confidence(self, page, facts):
        words = " ".join("".join(Elements(page).words).split())
        assert f"State: {facts.threshold.state}" in words
        assert "The band is its 90 % interval" in words
        assert "Expected openings in 10,000 points" in words

    def test_alerts_that_changed_are_drawn_and_counted(self, facts, page):
        words = " ".join(Elements(page).words)
        for one in facts.parity:
            alerts = one.entry.parity["alerts"]
            assert alerts["expected"] >= 300
            assert f"{alerts['changed']} of {alerts['expected']}" in words
            assert f"{alerts['changed']} changed" in words

    def test_errors_of_each_file_are_those_of_its_parity(self, facts):
        for one in facts.parity:
            assert not one.problem and one.runtime == "onnxruntime"
            p999 = np.quantile(one.error, 0.999, method="higher")
            assert p999 == pytest.approx(one.entry.parity["p999"], rel=0.2, abs=1e-5)
            assert p999 <= one.bound
        exact, quantized = facts.parity
        assert exact.error.max() < quantized.error.max()

    def test_names_cannot_break_out_of_the_page(self, page):
        assert "<script" not in page and "<b>" not in page
        assert "a &lt;script&gt;&amp;$x_$ b" in page
        assert "a &lt;b&gt;bold&lt;/b&gt; warning" in page

    def test_equal_facts_give_equal_pages(self, page, bundle, model):
        assert report_html(gather(bundle, model)).decode() == page


class TestPrivacy:
    def test_says_how_much_of_the_data_it_shows(self, page):
        assert "2 windows of 64 points of the training data" in page

    def test_holds_no_path_host_or_date(self, page, bundle):
        assert bundle.where not in page and "/tmp" not in page and "/home" not in page
        assert platform.node() not in page
        assert "matplotlib" not in page.lower() and not re.search(r"20\d\d-\d\d-\d\d", page)

    def test_all_but_two_windows_stay_away(self, facts, model):
        shown = [one.seen for one in facts.examples]
        same = [any(np.array_equal(w, s) for s in shown) for w in model.validation[0]]
        assert sum(same) == 1  # the other is distorted


class TestOddCases:
    def test_a_detector_without_expected_values_says_so(self, facts):
        plain = tuple(dataclasses.replace(one, expected=None) for one in facts.examples)
        page = report_html(dataclasses.replace(facts, examples=plain)).decode()
        assert "This detector expects no values" in page and ">expected<" not in page

    def test_an_uncalibrated_threshold_has_no_band(self, facts):
        from edge_tsad.runtime.threshold import Threshold

        threshold = Threshold.from_tail(bundles.tail(100, 2), facts.budget)
        page = report_html(dataclasses.replace(facts, threshold=threshold)).decode()
        assert "Nobody knows the rate" in page and "fitted tail<" not in page
        assert "The band is" not in page

    def test_a_file_that_cannot_run_here_is_said(self, bundle, model, monkeypatch):
        monkeypatch.setattr(BACKENDS["onnxruntime"], "version", classmethod(lambda cls: None))
        page = report_html(gather(bundle, model)).decode()
        assert page.count("not run: onnxruntime is not installed here") == 2

    def test_another_model_is_refused(self, bundle, model):
        other = dataclasses.replace(model, facts={**model.facts, "seed": 1})
        with pytest.raises(ExportError, match="was made from another model"):
            gather(bundle, other)

    def test_many_channels_and_long_histories_stay_small(self):
        score = np.random.default_rng(0).random(1_000_000).astype(np.float32)
        score[500_000] = 7
        _, least, most = envelope(score)
        assert len(most) == MOST_BINS and most.max() == 7 and (least <= most).all()
        assert np.isnan(envelope(np.full(10, np.nan, np.float32))[1]).all()
        assert 500_000 in dots(score) and len(dots(score)) <= 500
        assert MOST_CHANNELS < 10


class TestCommand:
    @pytest.fixture
    def loads(self, model, monkeypatch):
        """The toy is in no registry, so its model is not read from a file."""
        monkeypatch.setattr(TrainedModel, "load", classmethod(lambda cls, path: model))

    def test_writes_the_page_beside_the_bundle(self, loads, bundle, page):
        from pathlib import Path

        result = CliRunner().invoke(main, ["report", bundle.where, "m.safetensors"])
        assert result.exit_code == 0, result.output
        target = Path(bundle.where).with_name("toy.report.html")
        assert target.read_text() == page
        assert str(target) in result.stdout

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["no.tsad", "m"], "no.tsad: does not exist"),
            (["BUNDLE", "m", "--out", "no/such/x.html"], "--out: the folder no/such does not"),
            (["BUNDLE", "m", "--budget", "often"], "budget: 'often' is not like"),
        ],
    )
    def test_bad_input_is_a_sentence(self, arguments, sentence, loads, bundle, tmp_path):
        given = [bundle.where if word == "BUNDLE" else word for word in arguments]
        result = CliRunner().invoke(main, ["report", *given])
        assert result.exit_code == 2 and sentence in result.stderr
        assert len(result.stderr.splitlines()) == 1

    def test_a_model_that_is_missing_is_a_sentence(self, bundle):
        result = CliRunner().invoke(main, ["report", bundle.where, "no.safetensors"])
        assert result.exit_code == 2 and "no.safetensors: does not exist" in result.stderr
