"""A whole sequence through one recurrent layer and direction, as one autograd function.

It allocates what the steps read and write, runs all steps by compiled C++ (CPU) or Triton (GPU), and computes the
weights' gradients by one GEMM over all steps. Only first derivatives in reverse mode.

Rows are packed as in PackedSequence: `sizes[t]` rows belong to step t, sequences sorted by length; N is the sum of
sizes, B the largest. A padded batch is the case of equal sizes. `joins` has one code for each of the unit's gates: how
the gate is joined with the feature, NONE (not refined), ADD or MUL, or that it is a uniform-refine gate, UNIFORM.
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

NONE, ADD, MUL, UNIFORM = 0, 1, 2, 3  # as in vectors.h
# Compiled steps pay off from this many rows on, of all steps together: the weights are rearranged for each call.
MIN_ROWS = 16
GPU = "cuda"  # tests interpret the Triton kernels on the CPU

# (function, joins, sizes, reverse, arrays): function is "lstm_forward", …, "mgu_backward", in recurrence.h; arrays are
# contiguous, of one dtype, in the order of that function's arguments.
RunSteps = Callable[[str, Sequence[int], Sequence[int], bool, Sequence[Tensor | None]], None]


def find_steps(rows: int, *tensors: Tensor | None, uniform: bool = False) -> RunSteps | None:
    """What runs the steps over these tensors: Triton kernels, compiled loops, or None if neither can.

    Args:
        rows: of all steps together.
        tensors: inputs of the steps; the first must not be None.
        uniform: whether a gate is UNIFORM, which the Triton kernels have not.
    """
    dtypes = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    if not uniform and can_take(GPU, dtypes, tensors) and (kernels := find_triton()):
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


# What the forward pass keeps of every step, (N, H) each, for the backward pass.
_KEPT = {"lstm": ("h_{t-1}", "c_{t-1}", "tanh c_t"), "gru": ("h_{t-1}", "U h_{t-1} + b_hh"), "mgu": ("h_{t-1}",)}


class RecurrentSteps(torch.autograd.Function):
    """All steps of an LSTM, GRU or MGU.

    Arguments of `apply`: "lstm", "gru" or "mgu"; pre-activations (N, blocks × H) = W_ih x + b_ih, which are
    overwritten; weight_hh (blocks × H, H); bias_hh (3 H,) of a GRU, whose reset gate multiplies it, else None: other
    units add it to the pre-activations; feature (N, H) or None; sizes; reverse; joins of the unit's gates; whether a
    backward pass may follow; what runs the steps; the initial states (B, H). Result: outputs (N, H) and last
    states (B, H).
    """

    @staticmethod
    def forward(
        ctx: Any,
        unit: str,
        acts: Tensor,
        weight_hh: Tensor,
        bias_hh: Tensor | None,
        feature: Tensor | None,
        sizes: Sequence[int],
        reverse: bool,
        joins: Sequence[int],
        needs_backward: bool,
        run: RunSteps,
        *initial: Tensor,
    ) -> tuple[Tensor, ...]:
        feature, acts = _contiguous(feature, acts)
        output = acts.new_empty(len(acts), weight_hh.shape[1])
        states = [_copy(state) for state in initial]
        kept = [torch.empty_like(output) if needs_backward else None for _ in _KEPT[unit]]
        biases = _contiguous(bias_hh) if unit == "gru" else []
        arrays = weight_hh.contiguous(), *biases, feature, acts, *states, output, *kept
        run(f"{unit}_forward", joins, sizes, reverse, arrays)
        if needs_backward:
            ctx.save_for_backward(weight_hh, feature, acts, *kept)
            ctx.unit, ctx.arguments, ctx.run = unit, (joins, sizes, reverse), run
        return output, *states

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, d_output: Tensor, *d_last: Tensor) -> tuple[Tensor | None, ...]:
        weight_hh, feature, acts, before_h, *kept = _contiguous(*ctx.saved_tensors)
        d_acts = torch.empty_like(acts)  # with respect to W_ih x + b_ih
        d_feature = None if feature is None else torch.empty_like(feature)
        d_states = [_copy(d_state) for d_state in d_last]
        read, written = kept, []
        if ctx.unit == "gru":  # with respect to U h + b_hh, which differs in the candidate's block
            read, written = [before_h, *kept], [torch.empty_like(acts)]
        elif ctx.unit == "mgu":  # f' h_{t-1}
            read, written = [before_h], [torch.empty_like(before_h)]
        arrays = weight_hh, feature, acts, *read, d_output.contiguous(), *d_states, d_acts, *written, d_feature
        ctx.run(f"{ctx.unit}_backward", *ctx.arguments, arrays)
        d_weight = d_bias = None
        d_product = written[0] if ctx.unit == "gru" else d_acts
        if ctx.needs_input_grad[2] and ctx.unit == "mgu":  # each block of U has an input of its own
            d_forget, d_candidate, *d_refine = d_acts.split(before_h.shape[1], dim=1)
            inputs = (d_forget, before_h), (d_candidate, written[0]), *((d, before_h) for d in d_refine)
            d_weight = torch.cat([matmul(d.t(), x) for d, x in inputs])
        elif ctx.needs_input_grad[2]:
            d_weight = matmul(d_product.t(), before_h)
        if ctx.needs_input_grad[3]:
            d_bias = d_product.sum(0)
        return None, d_acts, d_weight, d_bias, d_feature, *(None,) * 5, *d_states
