"""The GRU's fast path; see `str_app.models.kernels.fused`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from str_app.models.gates.gate import RefinedGate
from str_app.models.gates.units import GRU
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


def gru_forward(
    gate: RefinedGate,
    sizes: Sequence[int],
    reverse: bool,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    feature: Tensor | None,
    projected: Tensor,
    h_run: Tensor,
    output: Tensor,
    before_h: Tensor | None,
    inner: Tensor | None,
) -> None:
    """Steps in torch's operations: `projected` becomes the gates and the candidate, h_run the last state."""
    H = h_run.shape[1]
    scratch, product = torch.empty_like(h_run), h_run.new_empty(len(h_run), 3 * H)
    recurrent = weight_hh.t()
    live = live_rows(sizes, h_run, scratch, product, product[:, : 2 * H], product[:, 2 * H :])
    for rz, r, z, n, x, out, h_was, u_n in by_step(
        sizes, reverse, projected[:, : 2 * H], *projected.chunk(3, dim=1), feature, output, before_h, inner
    ):
        h, s, u, u_rz, u_new = live[len(r)]
        if bias_hh is None:
            torch.mm(h, recurrent, out=u)
        else:
            torch.addmm(bias_hh, h, recurrent, out=u)
        if before_h is not None:
            h_was.copy_(h)
            u_n.copy_(u_new)
        rz.add_(u_rz).sigmoid_()
        n.addcmul_(join_out(gate, "reset", r, x, s), u_new).tanh_()
        torch.lerp(n, h, join_out(gate, "update", z, x, s), out=h)
        out.copy_(h)


def gru_backward(
    gate: RefinedGate,
    sizes: Sequence[int],
    reverse: bool,
    weight_hh: Tensor,
    feature: Tensor | None,
    acts: Tensor,
    before_h: Tensor,
    inner: Tensor,
    d_output: Tensor,
    d_h: Tensor,
    d_pre: Tensor,
    d_product: Tensor,
    d_feature: Tensor | None,
) -> None:
    """Steps in torch's operations: d_h becomes the gradient of the initial state."""
    H = d_h.shape[1]
    live = live_rows(sizes, d_h)
    for rows, steps in chunks(sizes, reverse, 3 * H):
        r, z, n = acts[rows].chunk(3, dim=1)
        x = None if feature is None else feature[rows]
        h_was, u_n = before_h[rows], inner[rows]
        # First what each gradient is to dh, for all is linear in it; the loop over steps multiplies by these.
        to_product = d_product[rows]
        p_r, p_z, p_n = to_product.chunk(3, dim=1)
        kept = gate.join("update", z, x)
        to_new = torch.ops.aten.tanh_backward(1 - kept, n)
        to_reset, to_update = to_new * u_n, h_was - n
        through_gate(gate, "reset", to_reset, r, x, p_r)
        through_gate(gate, "update", to_update, z, x, p_z)
        torch.mul(to_new, gate.join("reset", r, x), out=p_n)

        all_d_h = torch.empty_like(h_was)
        for product, blocks, dh_t, d_out, stays in by_step(
            steps, not reverse, to_product, to_product.unflatten(1, (3, H)), all_d_h, d_output[rows], kept
        ):
            (dh,) = live[len(product)]
            torch.add(dh, d_out, out=dh_t)
            blocks.mul_(dh_t.unsqueeze(1))
            torch.mul(dh_t, stays, out=dh)
            dh.addmm_(product, weight_hh)
        d_pre[rows, : 2 * H] = to_product[:, : 2 * H]
        torch.mul(to_new, all_d_h, out=d_pre[rows, 2 * H :])
        if d_feature is not None:
            through_feature(gate, "reset", to_reset, r, all_d_h, d_feature[rows])
            through_feature(gate, "update", to_update, z, all_d_h, d_feature[rows])


class FusedGRU(torch.autograd.Function):
    """One layer and direction over packed rows.

    Arguments of `apply`: projections (N, 3 H) = W_ih x + b_ih, which are overwritten; weight_hh (3 H, H); bias_hh
    (3 H,) or None; feature (N, H) or None; h_0 (B, H); sizes; reverse; gate; whether a backward pass may follow.
    Result: outputs (N, H), h_n (B, H).
    """

    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        weight_hh: Tensor,
        bias_hh: Tensor | None,
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
        # Kept for the backward pass: h_{t-1}, and U h + b of the candidate.
        before_h, inner = (projected.new_empty(N, H) if keep else None for _ in range(2))

        bias = None if bias_hh is None else bias_hh.contiguous()
        states = h_run, output, before_h, inner
        take_steps(gru_forward, GRU, gate, sizes, reverse, weight_hh.contiguous(), bias, feature, projected, *states)
        if keep:
            ctx.save_for_backward(projected, weight_hh, feature, before_h, inner)
            ctx.choices = sizes, reverse, gate
        return output, h_run

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, d_output: Tensor, d_h: Tensor) -> tuple[Tensor | None, ...]:
        acts, weight_hh, feature, before_h, inner = ctx.saved_tensors
        sizes, reverse, gate = ctx.choices
        d_pre = torch.empty_like(acts)  # gradient of the projections
        d_product = torch.empty_like(acts)  # gradient of U h + b; they differ in the candidate's block
        d_feature = None if feature is None else torch.zeros_like(feature)
        d_h = running(d_h)
        kept = feature, acts, before_h, inner, d_output.contiguous()
        gradients = d_h, d_pre, d_product, d_feature
        take_steps(gru_backward, GRU, gate, sizes, reverse, weight_hh.contiguous(), *kept, *gradients)
        d_weight = transposed_product(d_product, before_h) if ctx.needs_input_grad[1] else None
        d_bias = d_product.sum(0) if ctx.needs_input_grad[2] else None
        return d_pre, d_weight, d_bias, d_feature, d_h, None, None, None, None
