"""The steps of the recurrent layers on a GPU: matrix products by torch, the element-wise part of each step by Triton.

An LSTM's or GRU's step takes two launches forward and two backward, an MGU's four each. Nothing synchronises with the
device or depends on values, so CUDA graphs can record it. Element-wise parts are computed in float32, or in float64
for float64 tensors.

With TRITON_INTERPRET=1 the kernels run on the CPU, slowly: so they are tested without a GPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256  # elements of one program
_PER_STEP = ["start", "elements"]  # differ from step to step: Triton must not compile a kernel for each value


@triton.jit
def _sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _tanh(x):
    e = tl.exp(-2 * tl.abs(x))
    magnitude = (1 - e) / (1 + e)
    return tl.where(x < 0, -magnitude, magnitude)


@triton.jit
def _join(gate, x, JOIN: tl.constexpr):
    """g ⋄ x; JOIN is `recurrence.NONE`, `ADD` or `MUL`."""
    if JOIN == 1:
        gate = gate + x
    if JOIN == 2:
        gate = gate * x
    return gate


@triton.jit
def _gate_backward(gradient, gate, x, JOIN: tl.constexpr):
    """gradient · ∂g'/∂a, where g' = σ(a) ⋄ x and `gate` = σ(a)."""
    if JOIN == 2:
        gradient = gradient * x
    return gradient * gate * (1 - gate)


@triton.jit
def _feature_backward(gradient, gate, JOIN: tl.constexpr):
    """gradient · ∂g'/∂x."""
    if JOIN == 2:
        gradient = gradient * gate
    if JOIN == 0:
        gradient = gradient * 0
    return gradient


@triton.jit
def _indices(start, elements, H: tl.constexpr, BLOCKS: tl.constexpr, BLOCK: tl.constexpr):
    """Indices of this program's elements in states (B, H), in arrays (N, H) and (N, BLOCKS · H), and their mask.

    `start` is the step's first row in arrays of N rows, `elements` the size of its states.
    """
    state = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = start + (state // H).to(tl.int64)
    column = state % H
    return state, row * H + column, row * (BLOCKS * H) + column, state < elements


@triton.jit
def _load(array, index, mask, DTYPE: tl.constexpr):
    return tl.load(array + index, mask=mask, other=0.0).to(DTYPE)


@triton.jit
def _load_feature(array, index, mask, DTYPE: tl.constexpr):
    """0 without a feature: then no gate is joined with it."""
    x = 0.0
    if array is not None:
        x = _load(array, index, mask, DTYPE)
    return x


@triton.jit
def _store(array, index, mask, value):
    tl.store(array + index, value.to(array.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=_PER_STEP)
def _lstm_forward_step(
    acts, feature, h_state, c_state, output, before_h, before_c, all_tanh_c, start, elements,
    INPUT: tl.constexpr, FORGET: tl.constexpr, OUTPUT: tl.constexpr,
    H: tl.constexpr, DTYPE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    state, row, stacked, mask = _indices(start, elements, H, 4, BLOCK)
    i = _sigmoid(_load(acts, stacked, mask, DTYPE))
    f = _sigmoid(_load(acts, stacked + H, mask, DTYPE))
    g = _tanh(_load(acts, stacked + 2 * H, mask, DTYPE))
    o = _sigmoid(_load(acts, stacked + 3 * H, mask, DTYPE))
    previous_c = _load(c_state, state, mask, DTYPE)
    x = _load_feature(feature, row, mask, DTYPE)
    c = _join(f, x, FORGET) * previous_c + _join(i, x, INPUT) * g
    tanh_c = _tanh(c)
    h = _join(o, x, OUTPUT) * tanh_c
    if before_h is not None:
        _store(before_h, row, mask, _load(h_state, state, mask, DTYPE))
        _store(before_c, row, mask, previous_c)
        _store(all_tanh_c, row, mask, tanh_c)
        _store(acts, stacked, mask, i)
        _store(acts, stacked + H, mask, f)
        _store(acts, stacked + 2 * H, mask, g)
        _store(acts, stacked + 3 * H, mask, o)
    _store(c_state, state, mask, c)
    _store(h_state, state, mask, h)
    _store(output, row, mask, h)


@triton.jit(do_not_specialize=_PER_STEP)
def _lstm_backward_step(
    feature, acts, before_c, all_tanh_c, d_output, d_h, d_c, d_acts, d_feature, start, elements,
    INPUT: tl.constexpr, FORGET: tl.constexpr, OUTPUT: tl.constexpr,
    H: tl.constexpr, DTYPE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    state, row, stacked, mask = _indices(start, elements, H, 4, BLOCK)
    i = _load(acts, stacked, mask, DTYPE)
    f = _load(acts, stacked + H, mask, DTYPE)
    g = _load(acts, stacked + 2 * H, mask, DTYPE)
    o = _load(acts, stacked + 3 * H, mask, DTYPE)
    previous_c = _load(before_c, row, mask, DTYPE)
    tanh_c = _load(all_tanh_c, row, mask, DTYPE)
    x = _load_feature(feature, row, mask, DTYPE)
    dh = _load(d_h, state, mask, DTYPE) + _load(d_output, row, mask, DTYPE)
    dc = _load(d_c, state, mask, DTYPE) + dh * _join(o, x, OUTPUT) * (1 - tanh_c * tanh_c)
    _store(d_acts, stacked, mask, _gate_backward(dc * g, i, x, INPUT))
    _store(d_acts, stacked + H, mask, _gate_backward(dc * previous_c, f, x, FORGET))
    _store(d_acts, stacked + 2 * H, mask, dc * _join(i, x, INPUT) * (1 - g * g))
    _store(d_acts, stacked + 3 * H, mask, _gate_backward(dh * tanh_c, o, x, OUTPUT))
    _store(d_c, state, mask, dc * _join(f, x, FORGET))
    if d_feature is not None:
        dx = _feature_backward(dc * g, i, INPUT) + _feature_backward(dc * previous_c, f, FORGET)
        _store(d_feature, row, mask, dx + _feature_backward(dh * tanh_c, o, OUTPUT))


@triton.jit(do_not_specialize=_PER_STEP)
def _gru_forward_step(
    acts, feature, product, h_state, output, before_h, candidate_hh, start, elements,
    RESET: tl.constexpr, UPDATE: tl.constexpr,
    H: tl.constexpr, DTYPE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    state, row, stacked, mask = _indices(start, elements, H, 3, BLOCK)
    unpacked = state // H * (3 * H) + state % H
    r = _sigmoid(_load(acts, stacked, mask, DTYPE) + _load(product, unpacked, mask, DTYPE))
    z = _sigmoid(_load(acts, stacked + H, mask, DTYPE) + _load(product, unpacked + H, mask, DTYPE))
    u = _load(product, unpacked + 2 * H, mask, DTYPE)
    x = _load_feature(feature, row, mask, DTYPE)
    n = _tanh(_load(acts, stacked + 2 * H, mask, DTYPE) + _join(r, x, RESET) * u)
    previous_h = _load(h_state, state, mask, DTYPE)
    h = n + _join(z, x, UPDATE) * (previous_h - n)
    if before_h is not None:
        _store(before_h, row, mask, previous_h)
        _store(candidate_hh, row, mask, u)
        _store(acts, stacked, mask, r)
        _store(acts, stacked + H, mask, z)
        _store(acts, stacked + 2 * H, mask, n)
    _store(h_state, state, mask, h)
    _store(output, row, mask, h)


@triton.jit(do_not_specialize=_PER_STEP)
def _gru_backward_step(
    feature, acts, before_h, candidate_hh, d_output, d_h, d_acts, d_product, d_feature, start, elements,
    RESET: tl.constexpr, UPDATE: tl.constexpr,
    H: tl.constexpr, DTYPE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    state, row, stacked, mask = _indices(start, elements, H, 3, BLOCK)
    r = _load(acts, stacked, mask, DTYPE)
    z = _load(acts, stacked + H, mask, DTYPE)
    n = _load(acts, stacked + 2 * H, mask, DTYPE)
    x = _load_feature(feature, row, mask, DTYPE)
    dh = _load(d_h, state, mask, DTYPE) + _load(d_output, row, mask, DTYPE)
    kept = _join(z, x, UPDATE)
    d_update = dh * (_load(before_h, row, mask, DTYPE) - n)
    d_n = dh * (1 - kept) * (1 - n * n)
    d_reset = d_n * _load(candidate_hh, row, mask, DTYPE)
    d_r = _gate_backward(d_reset, r, x, RESET)
    d_z = _gate_backward(d_update, z, x, UPDATE)
    _store(d_acts, stacked, mask, d_r)
    _store(d_acts, stacked + H, mask, d_z)
    _store(d_acts, stacked + 2 * H, mask, d_n)
    _store(d_product, stacked, mask, d_r)
    _store(d_product, stacked + H, mask, d_z)
    _store(d_product, stacked + 2 * H, mask, d_n * _join(r, x, RESET))
    _store(d_h, state, mask, dh * kept)
    if d_feature is not None:
        _store(d_feature, row, mask, _feature_backward(d_reset, r, RESET) + _feature_backward(d_update, z, UPDATE))


@triton.jit(do_not_specialize=_PER_STEP)
def _mgu_gate_forward(
    acts, feature, h_state, before_h, gated_h, start, elements,
    FORGET: tl.constexpr,
    H: tl.constexpr, DTYPE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    state, row, stacked, mask = _indices(start, elements, H, 2, BLOCK)
    f = _sigmoid(_load(acts, stacked, mask, DTYPE))
    x = _load_feature(feature, row, mask, DTYPE)
    h = _load(h_state, state, mask, DTYPE)
    if before_h is not None:
        _store(before_h, row, mask, h)
    _store(acts, stacked, mask, f)
    _store(gated_h, state, mask, _join(f, x, FORGET) * h)


@triton.jit(do_not_specialize=_PER_STEP)
def _mgu_candidate_forward(
    acts, feature, h_state, output, start, elements,
    FORGET: tl.constexpr, KEEP: tl.constexpr,
    H: tl.constexpr, DTYPE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    state, row, stacked, mask = _indices(start, elements, H, 2, BLOCK)
    f = _load(acts, stacked, mask, DTYPE)
    n = _tanh(_load(acts, stacked + H, mask, DTYPE))
    x = _load_feature(feature, row, mask, DTYPE)
    previous_h = _load(h_state, state, mask, DTYPE)
    h = previous_h + _join(f, x, FORGET) * (n - previous_h)
    if KEEP:
        _store(acts, stacked + H, mask, n)
    _store(h_state, state, mask, h)
    _store(output, row, mask, h)


@triton.jit(do_not_specialize=_PER_STEP)
def _mgu_candidate_backward(
    feature, acts, before_h, d_output, d_h, d_acts, gated_h, start, elements,
    FORGET: tl.constexpr,
    H: tl.constexpr, DTYPE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    state, row, stacked, mask = _indices(start, elements, H, 2, BLOCK)
    f = _load(acts, stacked, mask, DTYPE)
    n = _load(acts, stacked + H, mask, DTYPE)
    x = _load_feature(feature, row, mask, DTYPE)
    gate = _join(f, x, FORGET)
    dh = _load(d_h, state, mask, DTYPE) + _load(d_output, row, mask, DTYPE)
    _store(d_h, state, mask, dh)
    _store(d_acts, stacked + H, mask, dh * gate * (1 - n * n))
    _store(gated_h, row, mask, gate * _load(before_h, row, mask, DTYPE))


@triton.jit(do_not_specialize=_PER_STEP)
def _mgu_gate_backward(
    feature, acts, before_h, d_h, d_gated_h, d_acts, d_feature, start, elements,
    FORGET: tl.constexpr,
    H: tl.constexpr, DTYPE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    state, row, stacked, mask = _indices(start, elements, H, 2, BLOCK)
    f = _load(acts, stacked, mask, DTYPE)
    n = _load(acts, stacked + H, mask, DTYPE)
    previous_h = _load(before_h, row, mask, DTYPE)
    x = _load_feature(feature, row, mask, DTYPE)
    gate = _join(f, x, FORGET)
    dh = _load(d_h, state, mask, DTYPE)
    d_gated = _load(d_gated_h, state, mask, DTYPE)
    d_gate = dh * (n - previous_h) + d_gated * previous_h
    _store(d_acts, stacked, mask, _gate_backward(d_gate, f, x, FORGET))
    _store(d_h, state, mask, dh * (1 - gate) + d_gated * gate)
    if d_feature is not None:
        _store(d_feature, row, mask, _feature_backward(d_gate, f, FORGET))


class _Launcher:
    """Launches the kernels of one layer and direction.

    Args:
        joins: of the unit's gates, by the names that its kernels use.
        sizes: rows of each step.
        from_end: whether the last step runs first.
        weight_hh: of the layer.

    Attributes:
        steps: (first row, rows) of each step, in the order in which they run.
    """

    def __init__(self, joins: dict[str, int], sizes: Sequence[int], from_end: bool, weight_hh: Tensor) -> None:
        self._hidden = weight_hh.shape[1]
        dtype = tl.float64 if weight_hh.dtype == torch.float64 else tl.float32
        self._constants = {**joins, "H": self._hidden, "DTYPE": dtype, "BLOCK": BLOCK}
        steps = list(zip(itertools.accumulate(sizes, initial=0), sizes, strict=False))
        self.steps = steps[::-1] if from_end else steps

    def launch(self, kernel: Any, start: int, rows: int, *arrays: Tensor | None, **options: bool) -> None:
        elements = rows * self._hidden
        if elements:
            kernel[(triton.cdiv(elements, BLOCK),)](*arrays, start, elements, **options, **self._constants)


def _lstm_forward(launcher: _Launcher, weight_hh, feature, acts, h, c, output, *kept) -> None:
    recurrent = weight_hh.t()
    for start, rows in launcher.steps:
        acts[start : start + rows].addmm_(h[:rows], recurrent)
        launcher.launch(_lstm_forward_step, start, rows, acts, feature, h, c, output, *kept)


def _lstm_backward(launcher, weight_hh, feature, acts, before_c, tanh_c, d_output, d_h, d_c, d_acts, d_feature) -> None:
    arrays = feature, acts, before_c, tanh_c, d_output, d_h, d_c, d_acts, d_feature
    for start, rows in launcher.steps:
        launcher.launch(_lstm_backward_step, start, rows, *arrays)
        torch.mm(d_acts[start : start + rows], weight_hh, out=d_h[:rows])


def _gru_forward(launcher, weight_hh, bias_hh, feature, acts, h, output, *kept) -> None:
    recurrent, product = weight_hh.t(), h.new_empty(len(h), weight_hh.shape[0])
    for start, rows in launcher.steps:
        if bias_hh is None:
            torch.mm(h[:rows], recurrent, out=product[:rows])
        else:
            torch.addmm(bias_hh, h[:rows], recurrent, out=product[:rows])
        launcher.launch(_gru_forward_step, start, rows, acts, feature, product, h, output, *kept)


def _gru_backward(
    launcher, weight_hh, feature, acts, before_h, candidate_hh, d_output, d_h, d_acts, d_product, d_feature
) -> None:
    arrays = feature, acts, before_h, candidate_hh, d_output, d_h, d_acts, d_product, d_feature
    for start, rows in launcher.steps:
        launcher.launch(_gru_backward_step, start, rows, *arrays)
        d_h[:rows].addmm_(d_product[start : start + rows], weight_hh)


def _mgu_forward(launcher, weight_hh, feature, acts, h, output, before_h) -> None:
    gated_h = torch.empty_like(h)
    forget_weight, candidate_weight = (block.t() for block in weight_hh.chunk(2))
    forget, candidate = acts.chunk(2, dim=1)
    for start, rows in launcher.steps:
        forget[start : start + rows].addmm_(h[:rows], forget_weight)
        launcher.launch(_mgu_gate_forward, start, rows, acts, feature, h, before_h, gated_h)
        candidate[start : start + rows].addmm_(gated_h[:rows], candidate_weight)
        keep = before_h is not None
        launcher.launch(_mgu_candidate_forward, start, rows, acts, feature, h, output, KEEP=keep)


def _mgu_backward(launcher, weight_hh, feature, acts, before_h, d_output, d_h, d_acts, gated_h, d_feature) -> None:
    d_gated_h = torch.empty_like(d_h)
    forget_weight, candidate_weight = weight_hh.chunk(2)
    d_forget, d_candidate = d_acts.chunk(2, dim=1)
    of_candidate = feature, acts, before_h, d_output, d_h, d_acts, gated_h
    of_gate = feature, acts, before_h, d_h, d_gated_h, d_acts, d_feature
    for start, rows in launcher.steps:
        launcher.launch(_mgu_candidate_backward, start, rows, *of_candidate)
        torch.mm(d_candidate[start : start + rows], candidate_weight, out=d_gated_h[:rows])
        launcher.launch(_mgu_gate_backward, start, rows, *of_gate)
        d_h[:rows].addmm_(d_forget[start : start + rows], forget_weight)


# Each unit's gates, as its kernels call their joins.
_GATES = {"lstm": ("INPUT", "FORGET", "OUTPUT"), "gru": ("RESET", "UPDATE"), "mgu": ("FORGET",)}
_FUNCTIONS: dict[str, Callable[..., None]] = {
    "lstm_forward": _lstm_forward,
    "lstm_backward": _lstm_backward,
    "gru_forward": _gru_forward,
    "gru_backward": _gru_backward,
    "mgu_forward": _mgu_forward,
    "mgu_backward": _mgu_backward,
}


def run_steps(
    function: str, joins: Sequence[int], sizes: Sequence[int], reverse: bool, arrays: Sequence[Tensor | None]
) -> None:
    """A `recurrence.RunSteps`."""
    unit, _, direction = function.partition("_")
    weight_hh = arrays[0]
    assert weight_hh is not None
    of_gates = dict(zip(_GATES[unit], joins, strict=True))
    launcher = _Launcher(of_gates, sizes, reverse == (direction == "forward"), weight_hh)
    with torch.cuda.device_of(weight_hh):  # Triton launches on the current device
        _FUNCTIONS[function](launcher, *arrays)
