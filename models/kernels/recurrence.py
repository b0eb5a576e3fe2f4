"""A whole sequence through one recurrent layer and direction, as one autograd function for each unit.

Each function allocates what the steps read and write, runs all steps by compiled C++ (CPU) or Triton (GPU), and
computes the weights' gradients by one GEMM over all steps. Only first derivatives in reverse mode.

Rows are packed as in PackedSequence: `sizes[t]` rows belong to step t, sequences sorted by length; N is the sum of
sizes, B the largest. A padded batch is the case of equal sizes. `joins` has one code for each of the unit's gates: how
the gate is joined with the feature, NONE (not refined), ADD or MUL.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from str_app.models.kernels.dispatch import can_take, first_derivative_only
from str_app.models.kernels.library import Library, address, library_for
from str_app.models.kernels.product import matmul

NONE, ADD, MUL = 0, 1, 2  # as in vectors.h
# Compiled steps pay off from this many rows on, of all steps together: the weights are rearranged for each call.
MIN_ROWS = 16
GPU = "cuda"  # tests interpret the Triton kernels on the CPU

# (function, joins, sizes, reverse, arrays): function is "lstm_forward", …, "mgu_backward", in recurrence.h; arrays are
# contiguous, of one dtype, in the order of that function's arguments.
RunSteps = Callable[[str, Sequence[int], Sequence[int], bool, Sequence[Tensor | None]], None]


def find_steps(rows: int, *tensors: Tensor | None) -> RunSteps | None:
    """What runs the steps over these tensors: Triton kernels, compiled loops, or None if neither can.

    Args:
        rows: of all steps together.
        tensors: inputs of the steps; the first must not be None.
    """
    dtypes = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    if can_take(GPU, dtypes, tensors) and (kernels := find_triton()):
        run: RunSteps = kernels.run_steps
        return run
    library = compiled_library(rows, *tensors)
    return None if library is None else functools.partial(_run_compiled, library)


def compiled_library(rows: int, *tensors: Tensor | None) -> Library | None:
    """The compiled functions, if they can take these tensors and pay off for so many rows."""
    return None if rows < MIN_ROWS else library_for(*tensors)


@functools.cache
def find_triton() -> Any:
    """The module `triton_steps`, or None without Triton, which torch for CUDA installs."""
    try:
        from str_app.models.kernels import triton_steps
    except ImportError:
        return None
    return triton_steps


class _Shape(ctypes.Structure):
    """`RecurrenceShape` of recurrence.h."""

    _fields_ = (
        ("sizes", ctypes.POINTER(ctypes.c_int64)),
        ("steps", ctypes.c_int64),
        ("hidden", ctypes.c_int64),
        ("threads", ctypes.c_int64),
        ("reverse", ctypes.c_int32),
        ("join", ctypes.c_int32 * 3),
    )


def _run_compiled(
    library: Library,
    function: str,
    joins: Sequence[int],
    sizes: Sequence[int],
    reverse: bool,
    arrays: Sequence[Tensor | None],
) -> None:
    weight_hh = arrays[0]
    assert weight_hh is not None
    if any(array is not None and (array.dtype, array.device.type) != (weight_hh.dtype, "cpu") for array in arrays):
        raise RuntimeError(f"{function}: arrays differ in dtype or device")  # by a user's saved-tensor hooks
    rows, hidden = (ctypes.c_int64 * len(sizes))(*sizes), weight_hh.shape[1]
    codes = (ctypes.c_int32 * 3)(*joins)
    shape = _Shape(rows, len(sizes), hidden, torch.get_num_threads(), reverse, codes)
    library.call(function, weight_hh.dtype, ctypes.byref(shape), *map(address, arrays))


def _copy(state: Tensor) -> Tensor:
    """A contiguous copy, which the steps update in place."""
    return state.clone(memory_format=torch.contiguous_format)


def _contiguous(*tensors: Tensor | None) -> list[Any]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


class LSTMSteps(torch.autograd.Function):
    """All steps of an LSTM.

    Arguments of `apply`: pre-activations (N, 4 H) = W_ih x + b_ih + b_hh, which are overwritten; weight_hh (4 H, H);
    feature (N, H) or None; h_0, c_0 (B, H); sizes; reverse; joins of the input, forget and output gates; whether a
    backward pass may follow; what runs the steps. Result: outputs (N, H), h_n, c_n (B, H).
    """

    @staticmethod
    def forward(
        ctx: Any,
        acts: Tensor,
        weight_hh: Tensor,
        feature: Tensor | None,
        h_0: Tensor,
        c_0: Tensor,
        sizes: Sequence[int],
        reverse: bool,
        joins: Sequence[int],
        needs_backward: bool,
        run: RunSteps,
    ) -> tuple[Tensor, Tensor, Tensor]:
        feature, acts = _contiguous(feature, acts)
        output = acts.new_empty(len(acts), h_0.shape[1])
        h, c = _copy(h_0), _copy(c_0)
        # h_{t-1}, c_{t-1} and tanh(c_t) of every step
        before_h, before_c, tanh_c = (torch.empty_like(output) if needs_backward else None for _ in range(3))
        arrays = weight_hh.contiguous(), feature, acts, h, c, output, before_h, before_c, tanh_c
        run("lstm_forward", joins, sizes, reverse, arrays)
        if needs_backward:
            ctx.save_for_backward(weight_hh, feature, acts, before_h, before_c, tanh_c)
            ctx.arguments = joins, sizes, reverse
            ctx.run = run
        return output, h, c

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, d_output: Tensor, d_h: Tensor, d_c: Tensor) -> tuple[Tensor | None, ...]:
        weight_hh, feature, acts, before_h, before_c, tanh_c = _contiguous(*ctx.saved_tensors)
        d_acts = torch.empty_like(acts)
        d_feature = None if feature is None else torch.empty_like(feature)
        d_h, d_c = _copy(d_h), _copy(d_c)
        arrays = (
            *(weight_hh, feature, acts, before_c, tanh_c),
            *(d_output.contiguous(), d_h, d_c, d_acts, d_feature),
        )
        ctx.run("lstm_backward", *ctx.arguments, arrays)
        d_weight = matmul(d_acts.t(), before_h) if ctx.needs_input_grad[1] else None
        return d_acts, d_weight, d_feature, d_h, d_c, None, None, None, None, None


class GRUSteps(torch.autograd.Function):
    """All steps of a GRU.

    Arguments of `apply`: projections (N, 3 H) = W_ih x + b_ih, which are overwritten; weight_hh (3 H, H); bias_hh
    (3 H,) or None; feature (N, H) or None; h_0 (B, H); sizes; reverse; joins of the reset and update gates; whether a
    backward pass may follow; what runs the steps. Result: outputs (N, H), h_n (B, H).
    """

    @staticmethod
    def forward(
        ctx: Any,
        acts: Tensor,
        weight_hh: Tensor,
        bias_hh: Tensor | None,
        feature: Tensor | None,
        h_0: Tensor,
        sizes: Sequence[int],
        reverse: bool,
        joins: Sequence[int],
        needs_backward: bool,
        run: RunSteps,
    ) -> tuple[Tensor, Tensor]:
        bias_hh, feature, acts = _contiguous(bias_hh, feature, acts)
        output = acts.new_empty(len(acts), h_0.shape[1])
        h = _copy(h_0)
        # h_{t-1}, and the candidate's U h_{t-1} + b_hh of every step
        before_h, candidate_hh = (torch.empty_like(output) if needs_backward else None for _ in range(2))
        arrays = weight_hh.contiguous(), bias_hh, feature, acts, h, output, before_h, candidate_hh
        run("gru_forward", joins, sizes, reverse, arrays)
        if needs_backward:
            ctx.save_for_backward(weight_hh, feature, acts, before_h, candidate_hh)
            ctx.arguments = joins, sizes, reverse
            ctx.run = run
        return output, h

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, d_output: Tensor, d_h: Tensor) -> tuple[Tensor | None, ...]:
        weight_hh, feature, acts, before_h, candidate_hh = _contiguous(*ctx.saved_tensors)
        d_acts = torch.empty_like(acts)  # with respect to W_ih x + b_ih
        d_product = torch.empty_like(acts)  # with respect to U h + b_hh: differs in the candidate's block
        d_feature = None if feature is None else torch.empty_like(feature)
        d_h = _copy(d_h)
        arrays = (
            *(weight_hh, feature, acts, before_h, candidate_hh),
            *(d_output.contiguous(), d_h, d_acts, d_product, d_feature),
        )
        ctx.run("gru_backward", *ctx.arguments, arrays)
        d_weight = matmul(d_product.t(), before_h) if ctx.needs_input_grad[1] else None
        d_bias = d_product.sum(0) if ctx.needs_input_grad[2] else None
        return d_acts, d_weight, d_bias, d_feature, d_h, None, None, None, None, None


class MGUSteps(torch.autograd.Function):
    """All steps of an MGU: two GEMMs a step, because U's input waits for the gate.

    Arguments of `apply`: pre-activations (N, 2 H) = W_ih x + b_ih + b_hh, which are overwritten; weight_hh (2 H, H);
    feature (N, H) or None; h_0 (B, H); sizes; reverse; join of the forget gate; whether a backward pass may follow;
    what runs the steps. Result: outputs (N, H), h_n (B, H).
    """

    @staticmethod
    def forward(
        ctx: Any,
        acts: Tensor,
        weight_hh: Tensor,
        feature: Tensor | None,
        h_0: Tensor,
        sizes: Sequence[int],
        reverse: bool,
        joins: Sequence[int],
        needs_backward: bool,
        run: RunSteps,
    ) -> tuple[Tensor, Tensor]:
        feature, acts = _contiguous(feature, acts)
        output = acts.new_empty(len(acts), h_0.shape[1])
        h = _copy(h_0)
        before_h = torch.empty_like(output) if needs_backward else None  # h_{t-1} of every step
        run("mgu_forward", joins, sizes, reverse, (weight_hh.contiguous(), feature, acts, h, output, before_h))
        if needs_backward:
            ctx.save_for_backward(weight_hh, feature, acts, before_h)
            ctx.arguments = joins, sizes, reverse
            ctx.run = run
        return output, h

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, d_output: Tensor, d_h: Tensor) -> tuple[Tensor | None, ...]:
        weight_hh, feature, acts, before_h = _contiguous(*ctx.saved_tensors)
        d_acts, gated_h = torch.empty_like(acts), torch.empty_like(before_h)  # gated_h is f' h_{t-1}
        d_feature = None if feature is None else torch.empty_like(feature)
        d_h = _copy(d_h)
        arrays = weight_hh, feature, acts, before_h, d_output.contiguous(), d_h, d_acts, gated_h, d_feature
        ctx.run("mgu_backward", *ctx.arguments, arrays)
        d_weight = None
        if ctx.needs_input_grad[1]:
            d_forget, d_candidate = d_acts.chunk(2, dim=1)
            d_weight = torch.cat([matmul(d_forget.t(), before_h), matmul(d_candidate.t(), gated_h)])
        return d_acts, d_weight, d_feature, d_h, None, None, None, None, None
