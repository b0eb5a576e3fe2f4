"""The LSTM's fast path; see `str_app.models.kernels.fused`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from str_app.models.gates.gate import RefinedGate
from str_app.models.gates.units import LSTM
from str_app.models.kernels.fused import (
    by_step,
    chunks,
    first_derivative_only,
    join_out,
    live_rows,
    running,
    take_steps,
    through_feature,
    through_gate,
    transposed_product,
)


def lstm_forward(
    gate: RefinedGate,
    sizes: Sequence[int],
    reverse: bool,
    weight_hh: Tensor,
    feature: Tensor | None,
    projected: Tensor,
    h_run: Tensor,
    c_run: Tensor,
    output: Tensor,
    before_h: Tensor | None,
    before_c: Tensor | None,
    squashed: Tensor | None,
) -> None:
    """Steps in torch's operations: `projected` becomes the gates and the candidate, h_run and c_run the last states."""
    H = h_run.shape[1]
    keep = before_h is not None
    scratch, other = torch.empty_like(h_run), torch.empty_like(h_run)
    recurrent = weight_hh.t()
    live = live_rows(sizes, h_run, c_run, scratch, other)
    for a, a_if, i, f, g, o, x, out, h_was, c_was, tanh_c in by_step(
        sizes,
        reverse,
        projected,
        projected[:, : 2 * H],
        *projected.chunk(4, dim=1),
        feature,
        output,
        before_h,
        before_c,
        squashed,
    ):
        h, c, s, spare = live[len(a)]
        if keep:
            h_was.copy_(h)
            c_was.copy_(c)
        a.addmm_(h, recurrent)
        a_if.sigmoid_()
        g.tanh_()
        o.sigmoid_()
        torch.mul(join_out(gate, "forget", f, x, s), c, out=c)
        c.addcmul_(join_out(gate, "input", i, x, s), g)
        tanh_c = torch.tanh(c, out=tanh_c if keep else spare)
        torch.mul(join_out(gate, "output", o, x, s), tanh_c, out=h)
        out.copy_(h)


def lstm_backward(
    gate: RefinedGate,
    sizes: Sequence[int],
    reverse: bool,
    weight_hh: Tensor,
    feature: Tensor | None,
    acts: Tensor,
    before_c: Tensor,
    squashed: Tensor,
    d_output: Tensor,
    d_h: Tensor,
    d_c: Tensor,
    d_pre: Tensor,
    d_feature: Tensor | None,
) -> None:
    """Steps in torch's operations: d_h and d_c become the gradients of the initial states."""
    H = d_h.shape[1]
    live = live_rows(sizes, d_h, d_c)
    tanh_slope = torch.ops.aten.tanh_backward.grad_input
    for rows, steps in chunks(sizes, reverse, 4 * H):
        i, f, g, o = acts[rows].chunk(4, dim=1)
        x = None if feature is None else feature[rows]
        c_was, tanh_c = before_c[rows], squashed[rows]
        # First what each pre-activation's gradient is to dc or dh; the loop over steps multiplies by these.
        to_pre = d_pre[rows]
        p_i, p_f, p_g, p_o = to_pre.chunk(4, dim=1)
        through_gate(gate, "input", g, i, x, p_i)
        through_gate(gate, "forget", c_was, f, x, p_f)
        tanh_slope(gate.join("input", i, x), g, grad_input=p_g)
        through_gate(gate, "output", tanh_c, o, x, p_o)
        to_c = torch.ops.aten.tanh_backward(gate.join("output", o, x), tanh_c)
        kept = gate.join("forget", f, x)

        all_d_h, all_d_c = torch.empty_like(c_was), torch.empty_like(c_was)
        for pre, by_c, by_h, dh_t, dc_t, d_out, slope, stays in by_step(
            steps,
            not reverse,
            to_pre,
            to_pre[:, : 3 * H].unflatten(1, (3, H)),
            p_o,
            all_d_h,
            all_d_c,
            d_output[rows],
            to_c,
            kept,
        ):
            dh, dc = live[len(pre)]
            torch.add(dh, d_out, out=dh_t)
            torch.addcmul(dc, dh_t, slope, out=dc_t)
            by_c.mul_(dc_t.unsqueeze(1))
            by_h.mul_(dh_t)
            torch.mul(dc_t, stays, out=dc)
            torch.mm(pre, weight_hh, out=dh)
        if d_feature is not None:
            for name, upstream, vanilla, gradient in (
                ("input", g, i, all_d_c),
                ("forget", c_was, f, all_d_c),
                ("output", tanh_c, o, all_d_h),
            ):
                through_feature(gate, name, upstream, vanilla, gradient, d_feature[rows])


class FusedLSTM(torch.autograd.Function):
    """One layer and direction over packed rows.

    Arguments of `apply`: pre-activations (N, 4 H) = W_ih x + b_ih + b_hh, which are overwritten; weight_hh (4 H, H);
    feature (N, H) or None; h_0, c_0 (B, H); sizes; reverse; gate; whether a backward pass may follow.
    Result: outputs (N, H), h_n, c_n (B, H).
    """

    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        weight_hh: Tensor,
        feature: Tensor | None,
        h_0: Tensor,
        c_0: Tensor,
        sizes: Sequence[int],
        reverse: bool,
        gate: RefinedGate,
        keep: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        N, H = projected.shape[0], h_0.shape[1]
        feature = None if feature is None else feature.contiguous()
        output = projected.new_empty(N, H)
        h_run, c_run = running(h_0), running(c_0)
        # Kept for the backward pass.
        before_h, before_c, squashed = (projected.new_empty(N, H) if keep else None for _ in range(3))

        states = h_run, c_run, output, before_h, before_c, squashed
        take_steps(lstm_forward, LSTM, gate, sizes, reverse, weight_hh.contiguous(), feature, projected, *states)
        if keep:
            ctx.save_for_backward(projected, weight_hh, feature, before_h, before_c, squashed)
            ctx.choices = sizes, reverse, gate
        return output, h_run, c_run

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, d_output: Tensor, d_h: Tensor, d_c: Tensor) -> tuple[Tensor | None, ...]:
        acts, weight_hh, feature, before_h, before_c, squashed = ctx.saved_tensors
        sizes, reverse, gate = ctx.choices
        d_pre = torch.empty_like(acts)  # gradient of the pre-activations
        d_feature = None if feature is None else torch.zeros_like(feature)
        d_h, d_c = running(d_h), running(d_c)
        kept = feature, acts, before_c, squashed, d_output.contiguous()
        gradients = d_h, d_c, d_pre, d_feature
        take_steps(lstm_backward, LSTM, gate, sizes, reverse, weight_hh.contiguous(), *kept, *gradients)
        d_weight = transposed_product(d_pre, before_h) if ctx.needs_input_grad[1] else None
        return d_pre, d_weight, d_feature, d_h, d_c, None, None, None, None
