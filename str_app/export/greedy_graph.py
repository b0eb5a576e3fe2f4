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
    # Names begin with greedy/ or step/, which those of the encoder do not.
    # The body of the loop: the step on the encoder's memory, which it sees from outside, and on what it carries.
    aliases = [helper.make_node("Identity", [output], [name[output]]) for output in MEMORY]
    body_nodes = [
        *aliases,
        *step.graph.node,
        helper.make_node("Mul", [name["logits"], "greedy/inverse_temperature"], ["greedy/scaled"]),
        helper.make_node("Softmax", ["greedy/scaled"], ["greedy/probabilities_of_classes"], axis=1),
        helper.make_node("ArgMax", [name["logits"]], ["greedy/best"], axis=1, keepdims=0),
        helper.make_node(
            "ReduceMax", ["greedy/probabilities_of_classes", "greedy/axis_1"], ["greedy/probability"], keepdims=0
        ),
        helper.make_node("Where", ["greedy/had_ended", "greedy/zeros", "greedy/best"], ["greedy/class"]),
        helper.make_node(
            "Where", ["greedy/had_ended", "greedy/ones", "greedy/probability"], ["greedy/probability_of_class"]
        ),
        helper.make_node("Equal", ["greedy/class", "greedy/end"], ["greedy/has_ended"]),
        helper.make_node("Cast", ["greedy/has_ended"], ["greedy/as_integers"], to=TensorProto.INT64),
        helper.make_node("ReduceMin", ["greedy/as_integers"], ["greedy/all_ended"], keepdims=0),
        helper.make_node("Equal", ["greedy/all_ended", "greedy/end"], ["greedy/goes_on"]),
        helper.make_node("Identity", ["greedy/class"], ["greedy/class_of_step"]),
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
    carried = [name["tokens"], *(name[state] for state in STATE), "greedy/had_ended"]
    carried_on = ["greedy/class", *(name[f"next_{state}"] for state in STATE), "greedy/has_ended"]
    before, after = (
        [value(tensor, kind, *shape) for tensor, (kind, shape) in zip(tensors, kinds, strict=True)]
        for tensors in (carried, carried_on)
    )
    body = helper.make_graph(
        body_nodes,
        "one_character",
        [value("greedy/iteration", integer), value("greedy/go_on", truth), *before],
        [
            value("greedy/goes_on", truth),
            *after,
            value("greedy/class_of_step", integer, "batch"),
            value("greedy/probability_of_class", number, "batch"),
        ],
    )
    constants: dict[str, npt.NDArray[Any]] = {
        "greedy/inverse_temperature": np.array(1 / temperature, np.float32),
        "greedy/axis_1": np.array([1], np.int64),
        "greedy/end": np.array(0, np.int64),
        "greedy/most_steps": np.array(header["max_length"] + 1, np.int64),
        "greedy/true": np.array(True),
        "greedy/false": np.array(False),
        "greedy/one": np.array(1, np.float32),
    }
    graph = onnx.GraphProto()
    graph.CopyFrom(encoder.graph)
    del graph.output[:]
    loop_outputs = [
        "greedy/last_class",
        "greedy/last_hidden",
        "greedy/last_cell",
        "greedy/ended_at_last",
        "greedy/classes_by_step",
        "greedy/probabilities_by_step",
    ]
    graph.node.extend(
        [
            helper.make_node("Shape", ["widths"], ["greedy/batch_size"]),
            helper.make_node("Expand", ["greedy/end", "greedy/batch_size"], ["greedy/zeros"]),
            helper.make_node("Expand", ["greedy/one", "greedy/batch_size"], ["greedy/ones"]),
            helper.make_node("Expand", ["greedy/false", "greedy/batch_size"], ["greedy/none_ended"]),
            helper.make_node(
                "Loop",
                ["greedy/most_steps", "greedy/true", "greedy/zeros", *STATE, "greedy/none_ended"],
                loop_outputs,
                body=body,
            ),
            helper.make_node("Transpose", ["greedy/classes_by_step"], ["classes"], perm=[1, 0]),
            helper.make_node("Transpose", ["greedy/probabilities_by_step"], ["probabilities"], perm=[1, 0]),
        ]
    )
    graph.initializer.extend(step.graph.initializer)
    graph.initializer.extend(numpy_helper.from_array(array, tensor) for tensor, array in constants.items())
    graph.output.extend([value("classes", integer, "batch", "T"), value("probabilities", number, "batch", "T")])
    opsets = {opset.domain: opset for opset in (*encoder.opset_import, *step.opset_import)}
    return helper.make_model(graph, opset_imports=list(opsets.values()), ir_version=encoder.ir_version)
