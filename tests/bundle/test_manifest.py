from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import bundles

from edge_tsad.bundle import Manifest, output_tensors
from edge_tsad.bundle.manifest import Tensor
from edge_tsad.errors import BundleError

TABLE = json.loads(bundles.manifest().to_json())


def changed(path: str, value: object) -> bytes:
    """The manifest with the value at ``path`` replaced; a value of ... deletes it."""
    table = json.loads(json.dumps(TABLE))
    *parents, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    place: Any = table
    for key in parents:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(table).encode()


def test_round_trip() -> None:
    manifest = bundles.manifest()
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert Manifest.from_json(manifest.to_json()).to_json() == manifest.to_json()


def test_file_name() -> None:
    assert bundles.manifest().filename == "pump-1.2.tsad"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format_version", 2, "format_version 2 is unknown"),
        ("format_version", True, "format_version True is unknown"),
        ("format_version", ..., "has no format_version"),
        ("name", ..., "name: is missing"),
        ("name", "../x", "name: '../x' is no plain name"),
        ("name", "a\n", "name: "),
        ("version", "", "version: '' is no version"),
        ("surprise", 1, "surprise: is not a known key"),
        ("counter", 2, "minimum_counter: 3 is not in 0…2"),
        ("minimum_counter", -1, "minimum_counter: -1"),
        ("counter", 7.5, "counter: is 7.5; a whole number is needed"),
        ("counter", "7", "counter: is '7'"),
        ("timing/hop", 0, "timing.hop: 0 is less than 1"),
        ("timing/hop", 2**62, "timing.delay: "),
        ("timing/window", 2**40, "timing.window: 1099511627776 points are more than can be held"),
        ("timing/period", 2**40, "timing.period: 1099511627776 is more than"),
        ("policy/cooldown", 2**40, "policy.cooldown: 1099511627776 is more than"),
        ("policy/hysteresis", 2, "policy.hysteresis: 2"),
        ("channels", [], "channels: 0 are not in"),
        ("channels/1/name", "pressure", "channels: 'pressure' is there twice"),
        ("channels/1/name", "\x1b[2J", "channels[1].name: '\\x1b[2J' cannot be printed"),
        ("channels/0/aggregate", "median", "channels[0].aggregate: is 'median'"),
        ("files", [], "files: is empty"),
        ("files/0/path", "card.md", "files: the path 'card.md' is there twice"),
        ("files/0/path", "Manifest.JSON", "files: the path 'manifest.json' is there twice"),
        ("files/0/sha256", "x", "files[0]: size or sha256"),
        ("files/0/size", -1, "files[0]: size or sha256"),
        ("files/0/runtimes", {"litert": "new"}, "files[0].runtimes: 'litert' = 'new'"),
        ("files/0/tail/median", "x", "files[0].tail.median"),
        ("files/0/format", "", "files[0].format: '' is no plain name"),
        ("golden/bounds", {}, "golden.bounds: does not name exactly"),
        ("golden/count", 0, "golden.count: 0 is not in"),
        ("inputs", [], "inputs: are not"),
        ("inputs/0/dtype", "int8", "inputs[0].dtype: is 'int8'"),
        ("outputs", [], "outputs: are not"),
        ("training", [], "training: is a list"),
    ],
)
def test_a_wrong_manifest_is_refused_with_its_key_path(
    path: str, value: object, message: str
) -> None:
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(changed(path, value))
    assert str(caught.value).startswith(f"manifest.json: {message}")
    assert "\n" not in str(caught.value)


def test_bounds_may_not_be_negative() -> None:
    bounds = {path: {"absolute": -1, "relative": 0, "level": 0} for path in bundles.MODELS}
    with pytest.raises(BundleError, match=r"golden\.bounds\.'model/.*'\.absolute: -1\.0 is neg"):
        Manifest.from_json(changed("golden/bounds", bounds))


def test_not_finite_numbers_are_refused() -> None:
    for number in ("NaN", "Infinity", "1e999"):
        data = changed("policy/hysteresis", 123.5).replace(b"123.5", number.encode())
        with pytest.raises(BundleError, match=r"manifest\.json"):
            Manifest.from_json(data)
    with pytest.raises(BundleError, match="could not be written"):
        bundles.manifest(training={"x": float("nan")}).to_json()


def test_outputs_may_have_expected_or_not() -> None:
    for expected in (True, False):
        assert bundles.manifest(outputs=output_tensors(expected=expected))


def test_outputs_may_have_a_few_details_by_name() -> None:
    outputs = output_tensors(expected=False, details=("class", "turn_deg"))
    made = bundles.manifest(outputs=outputs)
    assert Manifest.from_json(made.to_json()).outputs == outputs
    for bad in (("turn_deg", "class"), ("Class",), ("a" * 30,), tuple("abcdefghi")):
        with pytest.raises(BundleError, match=r"manifest\.outputs"):
            bundles.manifest(outputs=output_tensors(expected=False, details=bad))
    with pytest.raises(BundleError, match=r"manifest\.outputs"):
        bundles.manifest(outputs=(*output_tensors(expected=True), Tensor("class", ("B", "T", "C"))))


def paths(value: object, prefix: str = "") -> list[str]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, inner in items:
        if "/" not in str(key):
            found.append(f"{prefix}{key}")
            found += paths(inner, f"{prefix}{key}/") if isinstance(inner, dict | list) else []
    return found


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(...),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
).filter(lambda value: value is ... or "Ellipsis" not in repr(value))


@given(st.sampled_from(paths(TABLE)), json_values)
@settings(max_examples=300, deadline=None)
def test_any_change_gives_a_manifest_or_a_sentence(path: str, value: object) -> None:
    try:
        manifest = Manifest.from_json(changed(path, value))
    except BundleError as e:
        assert str(e).startswith("manifest.json: ")
        assert str(e).isprintable()
    else:
        assert Manifest.from_json(manifest.to_json()) == manifest


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_any_json_is_no_manifest(value: object) -> None:
    with pytest.raises(BundleError, match=r"^manifest\.json: "):
        Manifest.from_json(json.dumps(value).encode())
