from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import bundles

from edge_tsad.bundle import Bounds, GoldenWindows, parse_bundle, self_test
from edge_tsad.bundle.container import pack, unpack
from edge_tsad.errors import BundleError
from edge_tsad.types import FloatArray

BUNDLE = parse_bundle(bundles.valid(), "x.tsad")
FILE = BUNDLE.manifest.files[0]
MANIFEST = BUNDLE.manifest


@dataclasses.dataclass
class Replay:
    """A backend that answers with the golden scores, changed."""

    change: FloatArray | float = 0.0
    factor: float = 1.0
    max_batch: int = 3
    name: str = "replay"

    def score(self, windows: FloatArray, observed: FloatArray) -> dict[str, FloatArray]:
        assert windows.shape == observed.shape
        assert len(windows) <= self.max_batch
        golden = bundles.golden_windows()
        rows = [np.flatnonzero((golden.window == w).all((1, 2)))[0] for w in windows]
        return {"score": (golden.score[rows] * self.factor + self.change).astype(np.float32)}


def test_round_trip_and_numpy_reads_it() -> None:
    golden = bundles.golden_windows()
    data = golden.to_bytes()
    assert data == bundles.golden_windows().to_bytes()
    again = GoldenWindows.from_bytes(data, MANIFEST)
    with np.load(io.BytesIO(data)) as file:
        for name in ("window", "observed", "score"):
            np.testing.assert_array_equal(getattr(again, name), getattr(golden, name))
            np.testing.assert_array_equal(file[name], getattr(golden, name))


def test_the_same_scores_pass() -> None:
    outcome = self_test(BUNDLE, FILE, Replay())
    assert outcome.passed
    assert (outcome.worst, outcome.flipped, outcome.windows) == (0, 0, 4)


def test_a_deviation_within_bounds_passes() -> None:
    assert self_test(BUNDLE, FILE, Replay(factor=1.09)).passed
    assert self_test(BUNDLE, FILE, Replay(change=0.009)).passed


def test_a_deviation_beyond_bounds_fails_and_says_how_far() -> None:
    outcome = self_test(BUNDLE, FILE, Replay(change=0.5))
    assert not outcome.passed
    assert outcome.flipped == 4
    assert "times as far from the float model as allowed" in outcome.problem
    assert "4 of 4 golden windows are decided otherwise" in outcome.problem


def test_scores_within_bounds_that_decide_otherwise_fail() -> None:
    """The peak of one window, 0.5, is off by 0.055 of the allowed 0.06 and crosses the level."""
    bounds = dict.fromkeys(MANIFEST.golden.bounds, Bounds(0.01, 0.1, 0.54))
    golden = dataclasses.replace(MANIFEST.golden, bounds=bounds)
    manifest = dataclasses.replace(MANIFEST, golden=golden)
    bundle = dataclasses.replace(BUNDLE, manifest=manifest)
    outcome = self_test(bundle, FILE, Replay(factor=1.09, change=0.01))
    assert outcome.worst <= 1
    assert not outcome.passed
    assert "within their bounds" in outcome.problem
    assert "1 of 4 golden windows are decided otherwise" in outcome.problem
    assert self_test(bundle, FILE, Replay(factor=0.95)).passed, "off as much, but on the same side"


def test_a_point_beside_the_level_may_fall_on_either_side() -> None:
    bounds = dict.fromkeys(MANIFEST.golden.bounds, Bounds(0.01, 0.1, 0.52))
    golden = dataclasses.replace(MANIFEST.golden, bounds=bounds)
    bundle = dataclasses.replace(BUNDLE, manifest=dataclasses.replace(MANIFEST, golden=golden))
    assert self_test(bundle, FILE, Replay(factor=1.09)).passed


def test_scores_that_are_not_finite_or_of_another_shape_fail() -> None:
    assert not self_test(BUNDLE, FILE, Replay(change=np.float32("nan"))).passed
    assert not self_test(BUNDLE, FILE, Replay(change=np.zeros((7, 1, 1), np.float32))).passed


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def replaced(name: str, data: bytes) -> bytes:
    members = {key: bytes(value) for key, value in unpack(MEMBERS, "it").items()}
    return pack({**members, name: data})


MEMBERS = bundles.golden_windows().to_bytes()
GOOD = bundles.golden_windows().score
WRONG = {
    "other shape": npy(GOOD[:2]),
    "other type": npy(GOOD.astype(np.float64)),
    "other order": npy(np.asfortranarray(GOOD)),
    "not finite": npy(np.full_like(GOOD, np.nan)),
    "objects": npy(np.array([{}], dtype=object)),
    "cut short": npy(GOOD)[:-1],
    "longer": npy(GOOD) + b"x",
    "a huge claim": npy(GOOD).replace(b"(4, 16), }      ", b"(4, 16000000), }"),
    "no array": b"hello",
    "other version": npy(GOOD).replace(b"NUMPY\1", b"NUMPY\2"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_array_is_refused(case: str) -> None:
    with pytest.raises(BundleError, match=r"^golden\.npz: score"):
        GoldenWindows.from_bytes(replaced("score.npy", WRONG[case]), MANIFEST)


def test_other_arrays_are_refused() -> None:
    with pytest.raises(BundleError, match="are not window, observed and score"):
        GoldenWindows.from_bytes(replaced("more.npy", b""), MANIFEST)


@given(st.integers(0, len(npy(GOOD)) - 1), st.integers(0, 255))
def test_a_damaged_array_is_refused_or_read(position: int, value: int) -> None:
    data = bytearray(npy(GOOD))
    data[position] = value
    try:
        GoldenWindows.from_bytes(replaced("score.npy", bytes(data)), MANIFEST)
    except BundleError as e:
        assert str(e).startswith("golden.npz: score")
