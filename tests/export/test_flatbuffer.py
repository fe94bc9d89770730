"""TFLite files are packed smaller and hold the same."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import Model
from ai_edge_litert.tools import flatbuffer_utils as tools
from oracles import toy_files

from edge_tsad.registry import BACKENDS
from export.flatbuffer import packed


def tree(data):
    return tools.read_model_from_bytearray(bytearray(data))


def plain(data):
    return bytes(tools.convert_object_to_bytearray(tree(data)))


@pytest.mark.parametrize("scheme", ["none", "dynamic"])
def test_equal_vectors_are_stored_once_and_nothing_is_lost(scheme):
    data = toy_files.file("tflite", scheme)
    assert packed(tree(plain(data))) == data, "the exporter packs so"
    assert len(data) < len(plain(data))
    assert plain(packed(tree(plain(data)))) == plain(data)


def test_contents_of_buffers_begin_where_the_schema_promises():
    data = np.frombuffer(toy_files.file("tflite", "dynamic"), np.uint8)
    beginning = data.__array_interface__["data"][0]
    model = Model.GetRootAs(data)
    buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
    held = [buffer for buffer in buffers if not buffer.DataIsNone()]
    assert held
    for buffer in held:
        place = buffer.DataAsNumpy().__array_interface__["data"][0]
        assert (place - beginning) % 16 == 0


def test_scores_are_the_same():
    data, windows = toy_files.file("tflite"), toy_files.anomalous()
    ours, theirs = (
        BACKENDS["litert"](each).score(windows.window, windows.observed)
        for each in (data, plain(data))
    )
    for name, values in theirs.items():
        assert np.array_equal(ours[name], values)
