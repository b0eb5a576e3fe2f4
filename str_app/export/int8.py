"""Graphs in 8-bit integers: a quarter of the size, and the encoder in less than half of the time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from str_app.buckets import batches_by_width
from str_app.models.preprocessing import Preprocessing

Feed = Mapping[str, npt.NDArray[Any]]
BLOCK = 64  # weights that share a scale in the step
CALIBRATION_BATCH = 4


def quantize_encoder(
    encoder: onnx.ModelProto, crops: Sequence[npt.NDArray[np.uint8]], preprocessing: Preprocessing
) -> onnx.ModelProto:
    """Convolutions with 8-bit inputs and weights; the first one, which sees the picture itself, stays in float32.

    Inputs have one scale a tensor, from the mean of their ranges in small batches of `crops`: with the widest range of
    all crops, a third more readings differ from float32. Weights have one a channel, in 7 bits, so that processors
    without VNNI, whose products of 8 bits would overflow, compute the same.

    Args:
        encoder: from `str_app.export.graphs.make_graphs`.
        crops: uint8 (H, W, 3) RGB, like those that will be read; a few hundred.
        preprocessing: of the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, prepared, target = (Path(folder) / name for name in ("source.onnx", "prepared.onnx", "target.onnx"))
        onnx.save(encoder, source)
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        convolutions = [node.name for node in onnx.load(prepared).graph.node if node.op_type == "Conv"]
        quantize_static(
            prepared,
            target,
            _Feeds(_batches(crops, preprocessing)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=convolutions[:1],
            extra_options={"CalibMovingAverage": True},
        )
        return onnx.load(target)


class _Feeds(CalibrationDataReader):
    def __init__(self, feeds: Iterator[Feed]) -> None:
        self._feeds = feeds

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def _batches(crops: Sequence[npt.NDArray[np.uint8]], preprocessing: Preprocessing) -> Iterator[Feed]:
    canvases = [preprocessing(crop) for crop in crops]
    for batch in batches_by_width([canvas.shape[1] for canvas, _ in canvases], CALIBRATION_BATCH):
        yield {
            "canvases": np.stack([canvases[index][0] for index in batch]),
            "widths": np.array([canvases[index][1] for index in batch], dtype=np.int64),
        }


def quantize_step(step: onnx.ModelProto) -> onnx.ModelProto:
    """Matrices in 8 bits, `BLOCK` weights a scale; inputs are rounded row by row while it runs.

    One crop is read as fast as its step's weights come from memory: a quarter of the bytes, a third of the time.

    Args:
        step: from `str_app.export.graphs.make_graphs`.
    """
    step = onnx.ModelProto.FromString(step.SerializeToString())
    graph = step.graph
    matrices = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "Gemm" or node.input[1] not in matrices:
            continue
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        name, *biases = node.input[1:]
        matrix = numpy_helper.to_array(matrices[name])
        rounded = _quantize(matrix if attributes.get("transB") else matrix.T)
        if rounded is None:
            continue
        weights = numpy_helper.from_array(rounded[0], f"{name}.int8")
        scales = numpy_helper.from_array(rounded[1], f"{name}.scale")
        inputs = [node.input[0], weights.name, scales.name, *(["", "", *biases] if biases else [])]
        size = weights.dims
        node.CopyFrom(
            helper.make_node(
                "MatMulNBits",
                inputs,
                list(node.output),
                name=node.name,
                domain="com.microsoft",
                N=size[0],
                K=size[1] * size[2],
                bits=8,
                block_size=BLOCK,
                accuracy_level=4,  # inputs in 8 bits too
            )
        )
        graph.initializer.extend([weights, scales])
        graph.initializer.remove(matrices.pop(name))
    step.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return step


def _quantize(matrix: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]] | None:
    """(N, K) → bytes (N, K / BLOCK, BLOCK), 128 for 0, and scales (N, K / BLOCK); None if `BLOCK` does not divide K."""
    rows, columns = matrix.shape
    if columns % BLOCK:
        return None
    blocks = matrix.reshape(rows, -1, BLOCK)
    scales = np.abs(blocks).max(axis=2) / np.float32(127)
    rounded = np.rint(blocks / np.where(scales == 0, 1, scales)[..., None]) + 128
    return rounded.astype(np.uint8), scales
