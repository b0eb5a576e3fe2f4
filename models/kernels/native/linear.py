"""What a recurrent layer computes from its inputs alone, for all steps at once, by the compiled product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from str_app.models.gates.gate import RefinedGate
from str_app.models.kernels.fused import first_derivative_only
from str_app.models.kernels.native.library import Library


class NativeLinear(torch.autograd.Function):
    """`F.linear`, and tanh after it.

    Arguments of `apply`: x (N, I), weight (O, I), bias (O,) or None, whether tanh follows, the compiled functions.
    Result: (N, O).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, squash: bool, library: Library) -> Tensor:
        result = library.product(x, weight.t(), bias, squash)
        ctx.save_for_backward(x, weight, result if squash else None)
        ctx.library = library
        return result

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, squashed = ctx.saved_tensors
        if squashed is not None:
            gradient = torch.ops.aten.tanh_backward(gradient, squashed)
        wanted = ctx.needs_input_grad
        d_x = ctx.library.product(gradient, weight) if wanted[0] else None
        d_weight = ctx.library.product(gradient.t(), x) if wanted[1] else None
        d_bias = gradient.sum(0) if wanted[2] else None
        return d_x, d_weight, d_bias, None, None


def map_inputs(
    library: Library,
    gate: RefinedGate,
    x: Tensor,
    weight_ih: Tensor,
    bias_ih: Tensor | None,
    weight_feature: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Projections (N, blocks × H) and the feature (N, H), as `F.linear` and `RefinedGate.map_feature` give them."""
    projected = NativeLinear.apply(x, weight_ih, bias_ih, False, library)
    if weight_feature is None:
        return projected, gate.map_feature(x, None)
    squash = gate.activation == "tanh"
    feature = NativeLinear.apply(x, weight_feature, None, squash, library)
    return projected, feature if squash else gate.map_feature(feature, None)
