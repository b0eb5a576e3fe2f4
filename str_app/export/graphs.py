"""The network of a checkpoint as ONNX graphs: one that encodes crops, one that advances the decoder by a character."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from str_app.engines.graph_folder import MEMORY, STATE
from str_app.models.backbones.conv_norm import fold_batch_norms
from str_app.models.decoders.base import Memory
from str_app.models.recognizer import Recognizer

OPSET = 20
_LARGEST = 1 << 16  # of every dimension that is open


class _Encoder(nn.Module):
    """Canvases uint8 (B, height, W, 3) and covered columns int64 (B,) → memory and first state, in one tuple."""

    def __init__(self, model: Recognizer) -> None:
        super().__init__()
        self.model = model

    def forward(self, canvases: Tensor, widths: Tensor) -> tuple[Tensor, ...]:
        memory, state = self.model.encode(self.model.normalize(canvases), widths)
        # One tensor given out twice would become one input of the step.
        return (*memory, *(tensor.clone() for tensor in state))


class _Step(nn.Module):
    """Memory, state and tokens of B sequences → logits (B, num_classes), state, attention (B, N)."""

    def __init__(self, model: Recognizer) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, values: Tensor, keys: Tensor, padding: Tensor, hidden: Tensor, cell: Tensor, tokens: Tensor
    ) -> tuple[Tensor, ...]:
        logits, state, attention = self.model.step(Memory(values, keys, padding), (hidden, cell), tokens)
        return (logits, *state, attention)


def make_graphs(model: Recognizer) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The encoder and the step in float32, batch norms folded; batch and canvas width are open.

    Raises:
        torch.onnx.errors.OnnxExporterError: the network has an operation that ONNX lacks.
    """
    model = _merge_pooling(fold_batch_norms(model).float().eval())
    columns = model.backbone.stride[1]
    batch, units = Dim("batch", min=1, max=_LARGEST), Dim("units", min=1, max=_LARGEST)
    # Sizes of 2 or more, all different: torch takes a size of 1, or two equal ones, as meant.
    canvases = torch.zeros(3, model.preprocessing.height, model.preprocessing.width, 3, dtype=torch.uint8)
    widths = torch.full((3,), model.preprocessing.width)
    encoder = export_module(
        _Encoder(model),
        {"canvases": canvases, "widths": widths},
        [{0: batch, 2: _multiple(columns, units)}, {0: batch}],
        (*MEMORY, *STATE),
    )
    positions = Dim("positions", min=1, max=_LARGEST)
    with torch.no_grad():
        encoded = _Encoder(model).eval()(canvases, widths)
    inputs = dict(zip((*MEMORY, *STATE), encoded, strict=True)) | {"tokens": torch.ones(3, dtype=torch.int64)}
    dims = [{0: batch, 1: positions}] * len(MEMORY) + [{0: batch}] * (len(STATE) + 1)
    step = export_module(_Step(model), inputs, dims, ("logits", *(f"next_{name}" for name in STATE), "attention"))
    return encoder, step


def _merge_pooling(model: Recognizer) -> Recognizer:
    """Average pooling before a convolution of 1 × 1 becomes a convolution of its own: the same sums in one operation.

    In 8 bits pooling takes as long as a convolution of 3 × 3. Changes `model`.
    """
    for module in model.modules():
        if not isinstance(module, nn.Sequential) or len(module) < 2 or not isinstance(module[0], nn.AvgPool2d):
            continue
        pool = module[0]
        convolution = module[1][0] if isinstance(module[1], nn.Sequential) else module[1]
        if (
            not isinstance(convolution, nn.Conv2d)
            or convolution.kernel_size != (1, 1)
            or pool.stride != pool.kernel_size
        ):
            continue
        rows, columns = (pool.stride, pool.stride) if isinstance(pool.stride, int) else pool.stride
        convolution.weight = nn.Parameter(convolution.weight.repeat(1, 1, rows, columns) / (rows * columns))
        convolution.kernel_size = convolution.stride = (rows, columns)
        module[0] = nn.Identity()
    return model


def _multiple(factor: int, dim: Any) -> Any:
    return dim if factor == 1 else factor * dim


def export_module(
    module: nn.Module, inputs: Mapping[str, Tensor], dims: Sequence[Mapping[int, Any]], outputs: Sequence[str]
) -> onnx.ModelProto:
    """The module's graph; names of inputs and outputs as given, `dims` the open dimensions of each input."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            dynamic_shapes=tuple(dims),
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    for node in proto.graph.node:
        del node.metadata_props[:]  # where in the source each operation stands: half of a small graph's size
    return proto
