"""Matrix products and linear layers by the compiled functions."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from str_app.models.kernels.dispatch import first_derivative_only
from str_app.models.kernels.library import Library, address, library_for


def product(library: Library, a: Tensor, b: Tensor, bias: Tensor | None = None, tanh: bool = False) -> Tensor:
    """a (M, K) · b (K, N) + bias (N,), any strides, one dtype; followed by tanh if `tanh`.

    Raises:
        RuntimeError: the shapes do not fit.
    """
    if a.shape[1] != b.shape[0] or (bias is not None and bias.shape != b.shape[1:]):
        shapes = " and ".join(str(tuple(x.shape)) for x in (a, b, bias) if x is not None)
        raise RuntimeError(f"matrices of the shapes {shapes} cannot be multiplied and added")
    result = a.new_empty(a.shape[0], b.shape[1])
    sizes = map(ctypes.c_int64, (*result.shape, a.shape[1]))
    left, right = ((address(x), *map(ctypes.c_int64, x.stride())) for x in (a, b))
    bias = None if bias is None else bias.contiguous()
    threads = ctypes.c_int64(torch.get_num_threads())
    library.call("gemm", a.dtype, *sizes, *left, *right, address(bias), tanh, address(result), threads)
    return result


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a (M, K) · b (K, N) without gradients, by the compiled product where it can take them."""
    library = library_for(a, b)
    return a @ b if library is None else product(library, a, b)


class CompiledLinear(torch.autograd.Function):
    """`F.linear`, optionally followed by tanh.

    Arguments of `apply`: x (N, I), weight (O, I), bias (O,) or None, whether tanh follows, the library.
    Result: (N, O).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, tanh: bool, library: Library) -> Tensor:
        result = product(library, x, weight.t(), bias, tanh)
        ctx.save_for_backward(x, weight, result if tanh else None)
        ctx.library = library
        return result

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, tanh_result = ctx.saved_tensors
        if tanh_result is not None:
            gradient = torch.ops.aten.tanh_backward(gradient, tanh_result)
        needed = ctx.needs_input_grad
        d_x = product(ctx.library, gradient, weight) if needed[0] else None
        d_weight = product(ctx.library, gradient.t(), x) if needed[1] else None
        d_bias = gradient.sum(0) if needed[2] else None
        return d_x, d_weight, d_bias, None, None
