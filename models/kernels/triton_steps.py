"""The recurrent layers' steps on a GPU: each step's element-wise part is one Triton kernel beside its matrix products.

As many launches as an LSTM's or GRU's step has at the least without a kernel that holds the whole recurrence: two
forwards, two backwards; an MGU's has four. Nothing here waits for the device or depends on values, so that CUDA graphs
can record it. Element-wise parts are computed in float32, in float64 for float64.

Imported only where Triton is. With TRITON_INTERPRET=1 it runs on the CPU, slowly: that is how it is tested without a
GPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from str_app.models.gates.gate import RefinedGate
from str_app.models.gates.units import Unit

BLOCK = 256  # elements of a program
_JOINS = {"none": 0, "add": 1, "mul": 2}
_COUNTS = ["start", "elements"]  # change from step to step: no reason to compile anew


@triton.jit
def _sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _tanh(x):
    small = tl.exp(-2 * tl.abs(x))
    size = (1 - small) / (1 + small)
    return tl.where(x < 0, -size, size)


@triton.jit
def _join(gate, x, HOW: tl.constexpr):
    if HOW == 1:
        gate = gate + x
    if HOW == 2:
        gate = gate * x
    return gate


@triton.jit
def _through_gate(upstream, gate, x, HOW: tl.constexpr):
    """upstream · ∂g'/∂a, where g' = σ(a) ⋄ x."""
    if HOW == 2:
        upstream = upstream * x
    return upstream * gate * (1 - gate)


@triton.jit
def _through_feature(upstream, gate, HOW: tl.constexpr):
    """upstream · ∂g'/∂x."""
    if HOW == 2:
        upstream = upstream * gate
    if HOW == 0:
        upstream = upstream * 0
    return upstream


@triton.jit
def _places(start, elements, H: tl.constexpr, BLOCKS: tl.constexpr, BLOCK: tl.constexpr):
    """Of this program's elements: in states (B, H), in arrays (N, H), in arrays (N, BLOCKS · H), and which exist."""
    state = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = start + (state // H).to(tl.int64)
    column = state % H
    return state, row * H + column, row * (BLOCKS * H) + column, state < elements


@triton.jit
def _read(array, at, known, F: tl.constexpr):
    return tl.load(array + at, mask=known, other=0.0).to(F)


@triton.jit
def _read_feature(array, at, known, F: tl.constexpr):
    """Zero where there is none, and no gate is joined with it."""
    x = 0.0
    if array is not None:
        x = _read(array, at, known, F)
    return x


@triton.jit
def _write(array, at, known, value):
    tl.store(array + at, value.to(array.dtype.element_ty), mask=known)


@triton.jit(do_not_specialize=_COUNTS)
def _lstm_step(
    acts, feature, h_run, c_run, output, before_h, before_c, squashed, start, elements,
    INPUT: tl.constexpr, FORGET: tl.constexpr, OUTPUT: tl.constexpr,
    H: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    state, at, wide, known = _places(start, elements, H, 4, BLOCK)
    i = _sigmoid(_read(acts, wide, known, F))
    f = _sigmoid(_read(acts, wide + H, known, F))
    g = _tanh(_read(acts, wide + 2 * H, known, F))
    o = _sigmoid(_read(acts, wide + 3 * H, known, F))
    c_was = _read(c_run, state, known, F)
    x = _read_feature(feature, at, known, F)
    c = _join(f, x, FORGET) * c_was + _join(i, x, INPUT) * g
    tanh_c = _tanh(c)
    h = _join(o, x, OUTPUT) * tanh_c
    if before_h is not None:
        _write(before_h, at, known, _read(h_run, state, known, F))
        _write(before_c, at, known, c_was)
        _write(squashed, at, known, tanh_c)
        _write(acts, wide, known, i)
        _write(acts, wide + H, known, f)
        _write(acts, wide + 2 * H, known, g)
        _write(acts, wide + 3 * H, known, o)
    _write(c_run, state, known, c)
    _write(h_run, state, known, h)
    _write(output, at, known, h)


@triton.jit(do_not_specialize=_COUNTS)
def _lstm_step_back(
    feature, acts, before_c, squashed, d_output, d_h, d_c, d_pre, d_feature, start, elements,
    INPUT: tl.constexpr, FORGET: tl.constexpr, OUTPUT: tl.constexpr,
    H: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    state, at, wide, known = _places(start, elements, H, 4, BLOCK)
    i = _read(acts, wide, known, F)
    f = _read(acts, wide + H, known, F)
    g = _read(acts, wide + 2 * H, known, F)
    o = _read(acts, wide + 3 * H, known, F)
    c_was = _read(before_c, at, known, F)
    tanh_c = _read(squashed, at, known, F)
    x = _read_feature(feature, at, known, F)
    dh = _read(d_h, state, known, F) + _read(d_output, at, known, F)
    dc = _read(d_c, state, known, F) + dh * _join(o, x, OUTPUT) * (1 - tanh_c * tanh_c)
    _write(d_pre, wide, known, _through_gate(dc * g, i, x, INPUT))
    _write(d_pre, wide + H, known, _through_gate(dc * c_was, f, x, FORGET))
    _write(d_pre, wide + 2 * H, known, dc * _join(i, x, INPUT) * (1 - g * g))
    _write(d_pre, wide + 3 * H, known, _through_gate(dh * tanh_c, o, x, OUTPUT))
    _write(d_c, state, known, dc * _join(f, x, FORGET))
    if d_feature is not None:
        dx = _through_feature(dc * g, i, INPUT) + _through_feature(dc * c_was, f, FORGET)
        _write(d_feature, at, known, dx + _through_feature(dh * tanh_c, o, OUTPUT))


@triton.jit(do_not_specialize=_COUNTS)
def _gru_step(
    acts, feature, product, h_run, output, before_h, inner, start, elements,
    RESET: tl.constexpr, UPDATE: tl.constexpr,
    H: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    state, at, wide, known = _places(start, elements, H, 3, BLOCK)
    own = state // H * (3 * H) + state % H
    r = _sigmoid(_read(acts, wide, known, F) + _read(product, own, known, F))
    z = _sigmoid(_read(acts, wide + H, known, F) + _read(product, own + H, known, F))
    u = _read(product, own + 2 * H, known, F)
    x = _read_feature(feature, at, known, F)
    n = _tanh(_read(acts, wide + 2 * H, known, F) + _join(r, x, RESET) * u)
    h_was = _read(h_run, state, known, F)
    h = n + _join(z, x, UPDATE) * (h_was - n)
    if before_h is not None:
        _write(before_h, at, known, h_was)
        _write(inner, at, known, u)
        _write(acts, wide, known, r)
        _write(acts, wide + H, known, z)
        _write(acts, wide + 2 * H, known, n)
    _write(h_run, state, known, h)
    _write(output, at, known, h)


@triton.jit(do_not_specialize=_COUNTS)
def _gru_step_back(
    feature, acts, before_h, inner, d_output, d_h, d_pre, d_product, d_feature, start, elements,
    RESET: tl.constexpr, UPDATE: tl.constexpr,
    H: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    state, at, wide, known = _places(start, elements, H, 3, BLOCK)
    r = _read(acts, wide, known, F)
    z = _read(acts, wide + H, known, F)
    n = _read(acts, wide + 2 * H, known, F)
    x = _read_feature(feature, at, known, F)
    dh = _read(d_h, state, known, F) + _read(d_output, at, known, F)
    stays = _join(z, x, UPDATE)
    to_update = dh * (_read(before_h, at, known, F) - n)
    d_n = dh * (1 - stays) * (1 - n * n)
    to_reset = d_n * _read(inner, at, known, F)
    d_r = _through_gate(to_reset, r, x, RESET)
    d_z = _through_gate(to_update, z, x, UPDATE)
    _write(d_pre, wide, known, d_r)
    _write(d_pre, wide + H, known, d_z)
    _write(d_pre, wide + 2 * H, known, d_n)
    _write(d_product, wide, known, d_r)
    _write(d_product, wide + H, known, d_z)
    _write(d_product, wide + 2 * H, known, d_n * _join(r, x, RESET))
    _write(d_h, state, known, dh * stays)
    if d_feature is not None:
        _write(d_feature, at, known, _through_feature(to_reset, r, RESET) + _through_feature(to_update, z, UPDATE))


@triton.jit(do_not_specialize=_COUNTS)
def _mgu_gate(
    acts, feature, h_run, before_h, passed, start, elements,
    FORGET: tl.constexpr,
    H: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    state, at, wide, known = _places(start, elements, H, 2, BLOCK)
    f = _sigmoid(_read(acts, wide, known, F))
    x = _read_feature(feature, at, known, F)
    h = _read(h_run, state, known, F)
    if before_h is not None:
        _write(before_h, at, known, h)
    _write(acts, wide, known, f)
    _write(passed, state, known, _join(f, x, FORGET) * h)


@triton.jit(do_not_specialize=_COUNTS)
def _mgu_step(
    acts, feature, h_run, output, start, elements,
    FORGET: tl.constexpr, KEEP: tl.constexpr,
    H: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    state, at, wide, known = _places(start, elements, H, 2, BLOCK)
    f = _read(acts, wide, known, F)
    n = _tanh(_read(acts, wide + H, known, F))
    x = _read_feature(feature, at, known, F)
    h_was = _read(h_run, state, known, F)
    h = h_was + _join(f, x, FORGET) * (n - h_was)
    if KEEP:
        _write(acts, wide + H, known, n)
    _write(h_run, state, known, h)
    _write(output, at, known, h)


@triton.jit(do_not_specialize=_COUNTS)
def _mgu_step_back(
    feature, acts, before_h, d_output, d_h, d_pre, passed, start, elements,
    FORGET: tl.constexpr,
    H: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    state, at, wide, known = _places(start, elements, H, 2, BLOCK)
    f = _read(acts, wide, known, F)
    n = _read(acts, wide + H, known, F)
    x = _read_feature(feature, at, known, F)
    opened = _join(f, x, FORGET)
    dh = _read(d_h, state, known, F) + _read(d_output, at, known, F)
    _write(d_h, state, known, dh)
    _write(d_pre, wide + H, known, dh * opened * (1 - n * n))
    _write(passed, at, known, opened * _read(before_h, at, known, F))


@triton.jit(do_not_specialize=_COUNTS)
def _mgu_gate_back(
    feature, acts, before_h, d_h, d_passed, d_pre, d_feature, start, elements,
    FORGET: tl.constexpr,
    H: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    state, at, wide, known = _places(start, elements, H, 2, BLOCK)
    f = _read(acts, wide, known, F)
    n = _read(acts, wide + H, known, F)
    h_was = _read(before_h, at, known, F)
    x = _read_feature(feature, at, known, F)
    opened = _join(f, x, FORGET)
    dh = _read(d_h, state, known, F)
    dp = _read(d_passed, state, known, F)
    d_opened = dh * (n - h_was) + dp * h_was
    _write(d_pre, wide, known, _through_gate(d_opened, f, x, FORGET))
    _write(d_h, state, known, dh * (1 - opened) + dp * opened)
    if d_feature is not None:
        _write(d_feature, at, known, _through_feature(d_opened, f, FORGET))


class _Steps:
    """The steps of one layer and direction in the recurrence's order, and how its kernels are launched."""

    def __init__(self, unit: Unit, gate: RefinedGate, sizes: Sequence[int], backwards: bool, like: Tensor) -> None:
        self._hidden = like.shape[1]
        joins = {one.upper(): _JOINS[gate.refine] if gate.refines(one) else 0 for one in unit.gates}
        precision = tl.float64 if like.dtype == torch.float64 else tl.float32
        self._fixed = {**joins, "H": self._hidden, "F": precision, "BLOCK": BLOCK}
        order = list(zip(itertools.accumulate(sizes, initial=0), sizes, strict=False))
        self.order = order[::-1] if backwards else order

    def launch(self, kernel: Any, start: int, size: int, *arrays: Tensor | None, **options: bool) -> None:
        elements = size * self._hidden
        if elements:
            kernel[(triton.cdiv(elements, BLOCK),)](*arrays, start, elements, **options, **self._fixed)


def lstm_forward(unit: Unit, gate: RefinedGate, sizes: Sequence[int], reverse: bool, *tensors: Any) -> None:
    weight_hh, feature, projected, h_run, c_run, output, before_h, before_c, squashed = tensors
    steps, recurrent = _Steps(unit, gate, sizes, reverse, h_run), weight_hh.t()
    for start, size in steps.order:
        projected[start : start + size].addmm_(h_run[:size], recurrent)
        states = projected, feature, h_run, c_run, output, before_h, before_c, squashed
        steps.launch(_lstm_step, start, size, *states)


def lstm_backward(unit: Unit, gate: RefinedGate, sizes: Sequence[int], reverse: bool, *tensors: Any) -> None:
    weight_hh, feature, acts, before_c, squashed, d_output, d_h, d_c, d_pre, d_feature = tensors
    steps = _Steps(unit, gate, sizes, not reverse, d_h)
    for start, size in steps.order:
        arrays = feature, acts, before_c, squashed, d_output, d_h, d_c, d_pre, d_feature
        steps.launch(_lstm_step_back, start, size, *arrays)
        torch.mm(d_pre[start : start + size], weight_hh, out=d_h[:size])


def gru_forward(unit: Unit, gate: RefinedGate, sizes: Sequence[int], reverse: bool, *tensors: Any) -> None:
    weight_hh, bias_hh, feature, projected, h_run, output, before_h, inner = tensors
    steps, recurrent = _Steps(unit, gate, sizes, reverse, h_run), weight_hh.t()
    product = h_run.new_empty(len(h_run), weight_hh.shape[0])
    for start, size in steps.order:
        if bias_hh is None:
            torch.mm(h_run[:size], recurrent, out=product[:size])
        else:
            torch.addmm(bias_hh, h_run[:size], recurrent, out=product[:size])
        states = projected, feature, product, h_run, output, before_h, inner
        steps.launch(_gru_step, start, size, *states)


def gru_backward(unit: Unit, gate: RefinedGate, sizes: Sequence[int], reverse: bool, *tensors: Any) -> None:
    weight_hh, feature, acts, before_h, inner, d_output, d_h, d_pre, d_product, d_feature = tensors
    steps = _Steps(unit, gate, sizes, not reverse, d_h)
    for start, size in steps.order:
        arrays = feature, acts, before_h, inner, d_output, d_h, d_pre, d_product, d_feature
        steps.launch(_gru_step_back, start, size, *arrays)
        d_h[:size].addmm_(d_product[start : start + size], weight_hh)


def mgu_forward(unit: Unit, gate: RefinedGate, sizes: Sequence[int], reverse: bool, *tensors: Any) -> None:
    weight_hh, feature, projected, h_run, output, before_h = tensors
    steps, keep = _Steps(unit, gate, sizes, reverse, h_run), before_h is not None
    passed = torch.empty_like(h_run)
    to_forget, to_new = (block.t() for block in weight_hh.chunk(2))
    forget, new = projected.chunk(2, dim=1)
    for start, size in steps.order:
        forget[start : start + size].addmm_(h_run[:size], to_forget)
        steps.launch(_mgu_gate, start, size, projected, feature, h_run, before_h, passed)
        new[start : start + size].addmm_(passed[:size], to_new)
        steps.launch(_mgu_step, start, size, projected, feature, h_run, output, KEEP=keep)


def mgu_backward(unit: Unit, gate: RefinedGate, sizes: Sequence[int], reverse: bool, *tensors: Any) -> None:
    weight_hh, feature, acts, before_h, d_output, d_h, d_pre, passed, d_feature = tensors
    steps = _Steps(unit, gate, sizes, not reverse, d_h)
    d_passed = torch.empty_like(d_h)
    forget_weight, new_weight = weight_hh.chunk(2)
    d_forget, d_new = d_pre.chunk(2, dim=1)
    for start, size in steps.order:
        steps.launch(_mgu_step_back, start, size, feature, acts, before_h, d_output, d_h, d_pre, passed)
        torch.mm(d_new[start : start + size], new_weight, out=d_passed[:size])
        arrays = feature, acts, before_h, d_h, d_passed, d_pre, d_feature
        steps.launch(_mgu_gate_back, start, size, *arrays)
        d_h[:size].addmm_(d_forget[start : start + size], forget_weight)


_FUNCTIONS: dict[str, Callable[..., None]] = {
    one.__name__: one for one in (lstm_forward, lstm_backward, gru_forward, gru_backward, mgu_forward, mgu_backward)
}


def run(name: str, unit: Unit, gate: RefinedGate, sizes: Sequence[int], reverse: bool, *tensors: Tensor | None) -> None:
    """All steps of one layer and direction, as `str_app.models.kernels.native.library.Library.run`."""
    _FUNCTIONS[name](unit, gate, sizes, reverse, *tensors)
