"""The gate against files that are wrong in ways that raise no error."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from oracles import toy_files

from edge_tsad.errors import DataError
from edge_tsad.registry import BACKENDS
from edge_tsad.training.series import Segment
from export.alerts import Stream, match
from export.gate import Gate
from export.quantize import SCHEMES
from export.subject import subject_of
from export.verify import RefusedError


@pytest.fixture(scope="module")
def gate():
    return Gate.of(subject_of(toy_files.model(), 0), None, 0)


def check(gate, data, kind, scheme):
    return gate.check(f"toy.{kind}", data, toy_files.EXPORTERS[kind], SCHEMES[scheme])


def after(data, value, *nodes):
    """The ONNX file with ``nodes`` put behind whatever makes ``value``.

    A node is an operator and its constants; ``value`` may be an input or an output.
    """
    import onnx
    from onnx import helper, numpy_helper

    proto = onnx.load_model_from_string(data)
    graph = proto.graph
    made = [helper.make_node("Identity", [value], ["w0"])]
    if value in {tensor.name for tensor in graph.input}:
        for node in graph.node:
            node.input[:] = [f"w{len(nodes)}" if name == value else name for name in node.input]
        place = 0
    else:
        place = next(i for i, node in enumerate(graph.node) if value in node.output) + 1
        maker = graph.node[place - 1]
        maker.output[:] = ["made" if name == value else name for name in maker.output]
        for node in graph.node[place:]:
            node.input[:] = [value if name == value else name for name in node.input]
        made = [helper.make_node("Identity", ["made"], ["w0"])]
    for number, (operator, constants, attributes) in enumerate(nodes):
        names = [f"w{number}"]
        for i, constant in enumerate(constants):
            names.append(f"c{number}-{i}")
            graph.initializer.append(numpy_helper.from_array(constant, names[-1]))
        made.append(helper.make_node(operator, names, [f"w{number + 1}"], **attributes))
    if place:
        made.append(helper.make_node("Identity", [f"w{len(nodes)}"], [value]))
    for node in reversed(made):
        graph.node.insert(place, node)
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


def int8(step, zero=0):
    constants = (np.float32(step), np.int8(zero))
    return ("QuantizeLinear", constants, {}), ("DequantizeLinear", constants, {})


HALF = (("Cast", (), {"to": 10}), ("Cast", (), {"to": 1}))


def inner(data, operator):
    """The output of the first node of a kind."""
    import onnx

    graph = onnx.load_model_from_string(data).graph
    return next(node.output[0] for node in graph.node if node.op_type == operator)


@pytest.mark.parametrize("kind", list(toy_files.EXPORTERS))
@pytest.mark.parametrize("scheme", ["none", "fp16", "dynamic"])
def test_right_files_pass_and_their_facts_are_kept(gate, kind, scheme):
    facts = check(gate, toy_files.file(kind, scheme), kind, scheme).parity
    assert facts["alerts"]["expected"] >= 300, "or equal alerts say nothing"
    assert facts["alerts"]["f1"] >= 0.99
    assert facts["distinct"] > 100
    assert facts["probes"] <= 1
    if scheme == "none":
        assert facts["alerts"]["changed"] == 0


def test_data_that_are_no_normal_operation_are_said():
    subject = subject_of(toy_files.model(), 0)
    wild = np.random.default_rng(0).normal(0, 100, subject.held_out.values.shape)
    held_out = Segment(wild.astype(np.float32), subject.held_out.observed)
    with pytest.raises(DataError, match=r"[\d,]+ of [\d,]+ scores .* no normal operation"):
        Gate.of(dataclasses.replace(subject, held_out=held_out), None, 0)


class TestRefuses:
    def test_one_quantized_operator_that_destroys_scores(self, gate):
        data = toy_files.file("onnx")
        wrong = after(data, inner(data, "Abs"), *int8(0.5))
        with pytest.raises(RefusedError, match=r"differ by .* at the 99\.9th percentile"):
            check(gate, wrong, "onnx", "static")

    def test_int8_outputs_that_tie(self, gate):
        """Near enough for every bound on errors: only the ties tell."""
        wrong = after(toy_files.file("onnx"), "score", *int8(gate.reference.unit / 10))
        with pytest.raises(RefusedError, match=r"its scores tie: .* distinct values, where"):
            check(gate, wrong, "onnx", "static")

    def test_float16_that_overflows_beyond_65504(self, gate):
        wrong = after(toy_files.file("onnx"), "window", *HALF)
        with pytest.raises(RefusedError, match=r"not finite for an offset of 100000"):
            check(gate, wrong, "onnx", "fp16")

    def test_a_bound_on_inputs_that_only_normal_data_keep(self, gate):
        """What a Min or Max folded into another operator does."""
        most = np.abs(gate.reference.windows.window).max() * np.float32(1.01)
        nodes = (("Min", (most,), {}), ("Max", (-most,), {}))
        wrong = after(toy_files.file("onnx"), "window", *nodes)
        with pytest.raises(RefusedError, match=r"for an offset of 100000 .* times as far"):
            check(gate, wrong, "onnx", "none")

    def test_scores_whose_order_is_kept_but_not_the_alerts(self, gate):
        """Scores are right up to just below the threshold, and flat from there on."""
        low = gate.reference.threshold - 0.01 * gate.reference.unit
        wrong = after(toy_files.file("onnx"), "score", ("Min", (np.float32(low),), {}))
        with pytest.raises(RefusedError, match=r"decided otherwise|of its alerts differ"):
            check(gate, wrong, "onnx", "dynamic")

    def test_scores_that_are_cut_off_far_above_the_threshold(self, gate):
        """No alert differs by it, and yet no one can tell a small anomaly from a large one."""
        most = gate.reference.threshold + 3 * gate.reference.unit
        wrong = after(toy_files.file("onnx"), "score", ("Min", (np.float32(most),), {}))
        with pytest.raises(RefusedError, match="scores of distorted windows differ by"):
            check(gate, wrong, "onnx", "dynamic")

    def test_expected_values_that_nobody_could_have_expected(self, gate):
        wrong = after(toy_files.file("onnx"), "expected", ("Mul", (np.float32(-100),), {}))
        with pytest.raises(RefusedError, match=r"expected values differ by .* channel's range"):
            check(gate, wrong, "onnx", "dynamic")

    def test_a_runtime_that_computes_something_else(self, gate, monkeypatch):
        kind = BACKENDS["litert"]
        right = kind.score

        def wrong(self, windows, observed):
            outputs = right(self, windows, observed)
            return outputs | {"score": np.sqrt(outputs["score"])}

        monkeypatch.setattr(kind, "score", wrong)
        with pytest.raises(RefusedError, match="its scores differ"):
            check(gate, toy_files.file("tflite"), "tflite", "none")

    def test_what_is_wrong_only_where_nothing_is_observed(self, gate):
        """The mean of nothing: a division by the number of observed points."""
        import onnx
        from onnx import helper

        proto = onnx.load_model_from_string(toy_files.file("onnx"))
        axes = onnx.numpy_helper.from_array(np.array([1, 2], np.int64), "axes")
        proto.graph.initializer.append(axes)
        (last,) = (node for node in proto.graph.node if "score" in node.output)
        last.output[0] = "whole"
        proto.graph.node.extend(
            [
                helper.make_node("ReduceSum", ["observed", "axes"], ["seen"], keepdims=0),
                helper.make_node("Div", ["seen", "seen"], ["one"]),
                helper.make_node("Unsqueeze", ["one", "last"], ["ones"]),
                helper.make_node("Mul", ["whole", "ones"], ["score"]),
            ]
        )
        last_axis = onnx.numpy_helper.from_array(np.array([1], np.int64), "last")
        proto.graph.initializer.append(last_axis)
        with pytest.raises(RefusedError, match="not finite for no observed point"):
            check(gate, proto.SerializeToString(), "onnx", "none")


class TestMatch:
    STREAM = Stream(np.empty((0, 1), np.float32), 100, 5)

    @pytest.mark.parametrize(
        ("expected", "found", "matched"),
        [
            ([], [], 0),
            ([10, 50], [10, 50], 2),
            ([10, 50], [15, 44], 1),
            ([10, 12], [11], 1),
            ([10], [7, 9, 11], 1),
            ([10, 20, 30], [5, 15, 25], 3),
            ([10, 20, 30], [30], 1),
        ],
    )
    def test_pairs_one_to_one_within_the_slack(self, expected, found, matched):
        result = match(self.STREAM, np.array(expected, int), np.array(found, int), slack=5)
        assert result.matched == matched
        assert result.changed == len(expected) + len(found) - 2 * matched

    def test_counts_and_f1(self):
        result = match(self.STREAM, np.array([10, 150, 170]), np.array([10, 150]), slack=5)
        assert (result.real, result.expected, result.found) == (1, 3, 2)
        assert result.f1 == pytest.approx(0.8)
        assert match(self.STREAM, np.array([], int), np.array([], int), slack=5).f1 == 1
