"""The MGU's fast path; see `str_app.models.kernels.fused`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from str_app.models.gates.gate import RefinedGate
from str_app.models.gates.units import MGU
from str_app.models.kernels.fused import (
    by_step,
    chunks,
    first_derivative_only,
    join_out,
    live_rows,
    running,
    take_steps,
    through_gate,
    transposed_product,
)


def mgu_forward(
    gate: RefinedGate,
    sizes: Sequence[int],
    reverse: bool,
    weight_hh: Tensor,
    feature: Tensor | None,
    projected: Tensor,
    h_run: Tensor,
    output: Tensor,
    before_h: Tensor | None,
) -> None:
    """Steps in torch's operations: `projected` becomes the gate and the candidate, h_run the last state."""
    scratch, passed = torch.empty_like(h_run), torch.empty_like(h_run)
    to_forget, to_new = (block.t() for block in weight_hh.chunk(2))
    live = live_rows(sizes, h_run, scratch, passed)
    for f, n, x, out, h_was in by_step(sizes, reverse, *projected.chunk(2, dim=1), feature, output, before_h):
        h, s, p = live[len(f)]
        if before_h is not None:
            h_was.copy_(h)
        f.addmm_(h, to_forget).sigmoid_()
        opened = join_out(gate, "forget", f, x, s)
        n.addmm_(torch.mul(opened, h, out=p), to_new).tanh_()
        torch.lerp(h, n, opened, out=h)
        out.copy_(h)


def mgu_backward(
    gate: RefinedGate,
    sizes: Sequence[int],
    reverse: bool,
    weight_hh: Tensor,
    feature: Tensor | None,
    acts: Tensor,
    before_h: Tensor,
    d_output: Tensor,
    d_h: Tensor,
    d_pre: Tensor,
    passed: Tensor,
    d_feature: Tensor | None,
) -> None:
    """Steps in torch's operations: d_h becomes the gradient of the initial state, `passed` f' h_{t-1}."""
    H = d_h.shape[1]
    forget_weight, new_weight = weight_hh.chunk(2)
    d_passed = torch.empty_like(d_h)
    live = live_rows(sizes, d_h, d_passed)
    for rows, steps in chunks(sizes, reverse, 4 * H):
        f, n = acts[rows].chunk(2, dim=1)
        x = None if feature is None else feature[rows]
        h_was = before_h[rows]
        p_f, p_n = d_pre[rows].chunk(2, dim=1)
        opened = gate.join("forget", f, x)
        torch.mul(opened, h_was, out=passed[rows])
        torch.ops.aten.tanh_backward.grad_input(opened, n, grad_input=p_n)
        slope = torch.empty_like(h_was)  # ∂f'/∂a
        through_gate(gate, "forget", torch.ones_like(h_was), f, x, slope)
        torch.sub(n, h_was, out=p_f)
        kept = 1 - opened

        d_opened = torch.empty_like(h_was)
        for d_f, d_n, d_gate, was, steep, open_t, stays, d_out in by_step(
            steps, not reverse, p_f, p_n, d_opened, h_was, slope, opened, kept, d_output[rows]
        ):
            dh, dp = live[len(d_f)]
            dh.add_(d_out)
            d_n.mul_(dh)
            torch.mm(d_n, new_weight, out=dp)
            torch.mul(d_f, dh, out=d_gate).addcmul_(dp, was)
            torch.mul(d_gate, steep, out=d_f)
            dh.mul_(stays).addcmul_(dp, open_t).addmm_(d_f, forget_weight)
        if d_feature is not None:
            d_feature[rows] = d_opened * f if gate.refine == "mul" else d_opened


class FusedMGU(torch.autograd.Function):
    """One layer and direction over packed rows. Two GEMMs a step, of half a GEMM's size: U's input waits for the gate.

    Arguments of `apply`: pre-activations (N, 2 H) = W_ih x + b_ih + b_hh, which are overwritten; weight_hh (2 H, H);
    feature (N, H) or None; h_0 (B, H); sizes; reverse; gate; whether a backward pass may follow.
    Result: outputs (N, H), h_n (B, H).
    """

    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        weight_hh: Tensor,
        feature: Tensor | None,
        h_0: Tensor,
        sizes: Sequence[int],
        reverse: bool,
        gate: RefinedGate,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        N, H = projected.shape[0], h_0.shape[1]
        feature = None if feature is None else feature.contiguous()
        output = projected.new_empty(N, H)
        h_run = running(h_0)
        before_h = projected.new_empty(N, H) if keep else None

        states = h_run, output, before_h
        take_steps(mgu_forward, MGU, gate, sizes, reverse, weight_hh.contiguous(), feature, projected, *states)
        if keep:
            ctx.save_for_backward(projected, weight_hh, feature, before_h)
            ctx.choices = sizes, reverse, gate
        return output, h_run

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, d_output: Tensor, d_h: Tensor) -> tuple[Tensor | None, ...]:
        acts, weight_hh, feature, before_h = ctx.saved_tensors
        sizes, reverse, gate = ctx.choices
        d_pre = torch.empty_like(acts)
        d_feature = None if feature is None else torch.empty_like(feature)
        passed = torch.empty_like(before_h)  # f' h_{t-1}
        d_h = running(d_h)
        kept = feature, acts, before_h, d_output.contiguous()
        gradients = d_h, d_pre, passed, d_feature
        take_steps(mgu_backward, MGU, gate, sizes, reverse, weight_hh.contiguous(), *kept, *gradients)
        d_weight = None
        if ctx.needs_input_grad[1]:
            d_f, d_n = d_pre.chunk(2, dim=1)
            d_weight = torch.cat([transposed_product(d_f, before_h), transposed_product(d_n, passed)])
        return d_pre, d_weight, d_feature, d_h, None, None, None, None
