"""Weights below float32's normal range are zero; nothing else of a graph changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from str_app.photos.denormals import without_denormals

TINY = np.finfo(np.float32).tiny
WEIGHTS = np.array([0.0, 1.0, -2.5, TINY, -TINY, TINY / 2, -TINY / 2, 1e-45], np.float32)


def graph_of(*tensors: TensorProto) -> bytes:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [len(WEIGHTS)])
    node = helper.make_node("Mul", ["x", tensors[0].name], ["y"])
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [len(WEIGHTS)])
    graph = helper.make_graph([node], "test", [value], [output], [*tensors])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def product(graph: bytes) -> np.ndarray:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": np.full(len(WEIGHTS), 1e6, np.float32)})[0])


def test_denormal_weights_become_zero() -> None:
    graph = graph_of(numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(WEIGHTS[::-1].copy(), "v"))
    flushed = without_denormals(graph)
    expected = np.where(np.abs(WEIGHTS) < TINY, 0, WEIGHTS) * np.float32(1e6)
    np.testing.assert_array_equal(product(flushed), expected)
    assert product(graph)[5] != 0, "the weights before"
    assert flushed.count(np.float32(TINY).tobytes()) == graph.count(np.float32(TINY).tobytes()) >= 2
    assert len(flushed) == len(graph)


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.float64, np.float16])
def test_other_tensors_stay(kind: type) -> None:
    """Small integers have the bytes of denormal numbers."""
    floats = numpy_helper.from_array(np.ones(len(WEIGHTS), np.float32), "w")
    graph = graph_of(floats, numpy_helper.from_array(np.arange(1, 9).astype(kind), "others"))
    assert without_denormals(graph) == graph


def test_weights_outside_of_raw_data_stay() -> None:
    graph = graph_of(helper.make_tensor("w", TensorProto.FLOAT, [len(WEIGHTS)], WEIGHTS.tolist()))
    assert without_denormals(graph) == graph


@pytest.mark.parametrize("cut", [1, 20, 61])
def test_a_graph_cut_short(cut: int) -> None:
    with pytest.raises(ValueError, match="not a message of protobuf"):
        without_denormals(graph_of(numpy_helper.from_array(WEIGHTS, "w"))[:-cut])


def test_the_installed_detector_has_them_and_reads_as_before() -> None:
    from str_app.photos.pp_ocr import _installed_file

    network = Path(_installed_file()).read_bytes()
    flushed = without_denormals(network)
    changed = np.frombuffer(network, np.uint8) != np.frombuffer(flushed, np.uint8)
    assert changed.sum() > 100_000
    pixels = np.random.default_rng(0).normal(size=(1, 3, 64, 96)).astype(np.float32)
    before, after = (
        ort.InferenceSession(each, providers=["CPUExecutionProvider"]).run(None, {"x": pixels})[0]
        for each in (network, flushed)
    )
    np.testing.assert_array_equal(before, after)
