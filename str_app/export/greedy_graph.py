"""Encoder, steps and greedy decoding in one graph, for hosts other than Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from str_app.engines.graph_folder import MEMORY, STATE


def make_greedy_graph(encoder: onnx.ModelProto, step: onnx.ModelProto, header: dict[str, Any]) -> onnx.ModelProto:
    """One graph: canvases and widths in, classes and their probabilities out.

    Inputs: `canvases` uint8 (B, height, W, 3) and `widths` int64 (B,), as of the encoder. Outputs: `classes` int64
    (B, T), 0 from the end of each text on and otherwise 1 + the index in the charset, and `probabilities` float32
    (B, T), calibrated, of each class, the end included.

    Args:
        encoder, step: see `str_app.export.graphs.make_graphs`.
        header: of the export; `max_length` and the temperature are built in.
    """
    step = onnx.compose.add_prefix(step, "step/")
    name = {tensor.name.removeprefix("step/"): tensor.name for tensor in (*step.graph.input, *step.graph.output)}
    temperature = float(header["info"].get("temperature", 1.0))
    # The body of the loop: the step on the encoder's memory, which it sees from outside, and on what it carries.
    aliases = [helper.make_node("Identity", [output], [name[output]]) for output in MEMORY]
    body_nodes = [
        *aliases,
        *step.graph.node,
        helper.make_node("Mul", [name["logits"], "inverse_temperature"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["probabilities_of_classes"], axis=1),
        helper.make_node("ArgMax", [name["logits"]], ["best"], axis=1, keepdims=0),
        helper.make_node("ReduceMax", ["probabilities_of_classes", "axis_1"], ["probability"], keepdims=0),
        helper.make_node("Where", ["had_ended", "zeros", "best"], ["class"]),
        helper.make_node("Where", ["had_ended", "ones", "probability"], ["probability_of_class"]),
        helper.make_node("Equal", ["class", "end"], ["has_ended"]),
        helper.make_node("Cast", ["has_ended"], ["as_integers"], to=TensorProto.INT64),
        helper.make_node("ReduceMin", ["as_integers"], ["all_ended"], keepdims=0),
        helper.make_node("Equal", ["all_ended", "end"], ["goes_on"]),
        helper.make_node("Identity", ["class"], ["class_of_step"]),
    ]
    integer, number, truth = TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL

    def value(tensor: str, kind: int, *shape: Any) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(tensor, kind, shape)

    kinds: list[tuple[int, tuple[str, ...]]] = [
        (integer, ("batch",)),
        (number, ("batch", "H")),
        (number, ("batch", "H")),
        (truth, ("batch",)),
    ]
    carried = [name["tokens"], *(name[state] for state in STATE), "had_ended"]
    carried_on = ["class", *(name[f"next_{state}"] for state in STATE), "has_ended"]
    before, after = (
        [value(tensor, kind, *shape) for tensor, (kind, shape) in zip(tensors, kinds, strict=True)]
        for tensors in (carried, carried_on)
    )
    body = helper.make_graph(
        body_nodes,
        "one_character",
        [value("iteration", integer), value("go_on", truth), *before],
        [
            value("goes_on", truth),
            *after,
            value("class_of_step", integer, "batch"),
            value("probability_of_class", number, "batch"),
        ],
    )
    constants: dict[str, npt.NDArray[Any]] = {
        "inverse_temperature": np.array(1 / temperature, np.float32),
        "axis_1": np.array([1], np.int64),
        "end": np.array(0, np.int64),
        "most_steps": np.array(header["max_length"] + 1, np.int64),
        "true": np.array(True),
        "false": np.array(False),
        "one": np.array(1, np.float32),
    }
    graph = onnx.GraphProto()
    graph.CopyFrom(encoder.graph)
    del graph.output[:]
    loop_outputs = [
        "last_class",
        "last_hidden",
        "last_cell",
        "ended_at_last",
        "classes_by_step",
        "probabilities_by_step",
    ]
    graph.node.extend(
        [
            helper.make_node("Shape", ["widths"], ["batch_size"]),
            helper.make_node("Expand", ["end", "batch_size"], ["zeros"]),
            helper.make_node("Expand", ["one", "batch_size"], ["ones"]),
            helper.make_node("Expand", ["false", "batch_size"], ["none_ended"]),
            helper.make_node("Loop", ["most_steps", "true", "zeros", *STATE, "none_ended"], loop_outputs, body=body),
            helper.make_node("Transpose", ["classes_by_step"], ["classes"], perm=[1, 0]),
            helper.make_node("Transpose", ["probabilities_by_step"], ["probabilities"], perm=[1, 0]),
        ]
    )
    graph.initializer.extend(step.graph.initializer)
    graph.initializer.extend(numpy_helper.from_array(array, tensor) for tensor, array in constants.items())
    graph.output.extend([value("classes", integer, "batch", "T"), value("probabilities", number, "batch", "T")])
    opsets = {opset.domain: opset for opset in (*encoder.opset_import, *step.opset_import)}
    return helper.make_model(graph, opset_imports=list(opsets.values()), ir_version=encoder.ir_version)
