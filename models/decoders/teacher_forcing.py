"""Teacher forcing of the attention decoder as one autograd function, for training on a CPU.

Operation by operation, every sequence takes as many steps as the longest one, and the backward pass adds to the
gradient of the whole feature map at each step: together half of the time of a training step. Here rows are packed as
in PackedSequence, so that no step is taken after a label's end, and the gradients of the feature map and of all weights
are computed once, after the recurrence. Values and gradients are those of `AttentionDecoder.step`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from str_app.models.gates.gate import RefinedGate
from str_app.models.kernels.dispatch import first_derivative_only


class TeacherForcing(torch.autograd.Function):
    """All steps of a batch whose labels are sorted by length, longest first.

    Arguments of `apply`: the cell's gate, with a linear feature and tanh; number of sequences that take each step; of
    the memory, values (B, N, C), keys (B, N, A) and padding (B, N); embeddings of the previous characters (B, T, E); of
    the attention, the weights of query (A, H) and score (A,); of the cell, weight_ih (4 H, E + C), weight_hh (4 H, H),
    the sum of both biases (4 H,) and weight_feature (H, E + C).
    Result: [h_t; glimpse] of each step (P, H + C) and its attention weights (P, N), P the sum of the sizes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        gate: RefinedGate,
        sizes: Sequence[int],
        values: Tensor,
        keys: Tensor,
        padding: Tensor,
        embedded: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        query_weight, score, weight_ih, weight_hh, bias, weight_feature = weights
        (B, N, C), E, H, P = values.shape, embedded.shape[2], weight_hh.shape[1], sum(sizes)
        inputs, acts, features = (values.new_empty(P, size) for size in (E + C, 4 * H, H))
        h_before, c_before, tanh_c = (values.new_empty(P, H) for _ in range(3))
        queries, attention, outputs = (values.new_empty(P, size) for size in (len(score), N, H + C))
        mask = torch.zeros_like(padding, dtype=values.dtype).masked_fill_(padding, -torch.inf)
        h, c, sigmoids = values.new_zeros(B, H), values.new_zeros(B, H), torch.empty_like(keys)
        for t, rows in enumerate(_rows_of_steps(sizes)):
            n = sizes[t]
            h, c = h[:n], c[:n]
            h_before[rows], c_before[rows] = h, c
            query = torch.mm(h, query_weight.t(), out=queries[rows])
            s = _sigmoids(keys[:n], query, sigmoids[:n])
            alpha = torch.softmax(torch.add(mask[:n], s @ score, alpha=2), dim=-1)
            attention[rows] = alpha
            x = inputs[rows]
            x[:, :E] = embedded[:n, t]
            x[:, E:] = torch.bmm(alpha.unsqueeze(1), values[:n]).squeeze(1)
            a = torch.addmm(bias, x, weight_ih.t(), out=acts[rows]).addmm_(h, weight_hh.t())
            i, f, g, o = a.chunk(4, dim=1)
            for vanilla in (i, f, o):
                vanilla.sigmoid_()
            g.tanh_()
            feature = torch.mm(x, weight_feature.t(), out=features[rows]).tanh_()
            c = gate.join("forget", f, feature) * c + gate.join("input", i, feature) * g
            h = gate.join("output", o, feature) * torch.tanh(c, out=tanh_c[rows])
            outputs[rows, :H], outputs[rows, H:] = h, x[:, E:]
        ctx.save_for_backward(
            values, keys, embedded, inputs, acts, features, h_before, c_before, tanh_c, queries, attention, *weights
        )
        ctx.gate, ctx.sizes = gate, sizes
        return outputs, attention

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, d_outputs: Tensor, d_attention: Tensor) -> tuple[Tensor | None, ...]:
        values, keys, embedded, inputs, acts, features, *rest = ctx.saved_tensors
        h_before, c_before, tanh_c, queries, attention, *weights = rest
        query_weight, score, weight_ih, weight_hh, _, weight_feature = weights
        gate, sizes = ctx.gate, ctx.sizes
        (B, T, E), H = embedded.shape, weight_hh.shape[1]
        d_acts, d_features, d_queries = torch.empty_like(acts), torch.zeros_like(features), torch.empty_like(queries)
        d_embedded, d_keys, d_score = torch.zeros_like(embedded), torch.zeros_like(keys), torch.zeros_like(score)
        d_glimpses, weights_of_steps = values.new_zeros(B, T, values.shape[2]), values.new_zeros(B, T, values.shape[1])
        d_h, d_c, sigmoids = values.new_zeros(B, H), values.new_zeros(B, H), torch.empty_like(keys)
        for t, rows in reversed(list(enumerate(_rows_of_steps(sizes)))):
            n = sizes[t]
            # The cell.
            i, f, g, o = acts[rows].chunk(4, dim=1)
            d_i, d_f, d_g, d_o = d_acts[rows].chunk(4, dim=1)
            feature, d_feature = features[rows], d_features[rows]
            dh = d_h[:n].add_(d_outputs[rows, :H])
            dc = d_c[:n].add_(_through_tanh(dh * gate.join("output", o, feature), tanh_c[rows]))
            for name, vanilla, d_vanilla, upstream in (
                ("input", i, d_i, dc * g),
                ("forget", f, d_f, dc * c_before[rows]),
                ("output", o, d_o, dh * tanh_c[rows]),
            ):
                if gate.refines(name):
                    d_feature += upstream * vanilla if gate.refine == "mul" else upstream
                    upstream = upstream * feature if gate.refine == "mul" else upstream
                torch.ops.aten.sigmoid_backward.grad_input(upstream, vanilla, grad_input=d_vanilla)
            d_g.copy_(_through_tanh(dc * gate.join("input", i, feature), g))
            dc.mul_(gate.join("forget", f, feature))
            d_feature.copy_(_through_tanh(d_feature, feature))
            d_x = torch.addmm(d_feature @ weight_feature, d_acts[rows], weight_ih)
            d_embedded[:n, t] = d_x[:, :E]
            # Attention: s = σ(2 (keys + query)), scores = 2 s · v.
            d_glimpse = d_x[:, E:].add_(d_outputs[rows, H:])
            alpha = attention[rows]
            d_glimpses[:n, t], weights_of_steps[:n, t] = d_glimpse, alpha
            d_alpha = torch.bmm(values[:n], d_glimpse.unsqueeze(2)).squeeze(2).add_(d_attention[rows])
            d_scores = torch.ops.aten._softmax_backward_data(d_alpha, alpha, -1, alpha.dtype)
            s = _sigmoids(keys[:n], queries[rows], sigmoids[:n])
            d_score.addmv_(s.flatten(0, 1).t(), d_scores.flatten(), alpha=2)
            slope = s.addcmul_(s, s, value=-1)
            d_keys[:n].addcmul_(d_scores.unsqueeze(2), slope)  # times 4 v, at the end
            d_query = torch.bmm(d_scores.unsqueeze(1), slope).squeeze(1).mul_(4 * score)
            d_queries[rows] = d_query
            torch.addmm(d_query @ query_weight, d_acts[rows], weight_hh, out=d_h[:n])
        d_values = torch.bmm(weights_of_steps.transpose(1, 2), d_glimpses)
        of_memory = d_values, d_keys.mul_(4 * score), None, d_embedded
        of_attention = d_queries.t() @ h_before, d_score
        of_cell = d_acts.t() @ inputs, d_acts.t() @ h_before, d_acts.sum(0), d_features.t() @ inputs
        return None, None, *of_memory, *of_attention, *of_cell


def pack(lengths: Tensor) -> tuple[Tensor, list[int]]:
    """Numbers of steps int64 (B,), all ≥ 1 → the order of the sequences, longest first, and how many take each step."""
    steps = torch.arange(int(lengths.max()), device=lengths.device)
    return lengths.argsort(descending=True, stable=True), (lengths.unsqueeze(1) > steps).sum(dim=0).tolist()


def unpack(packed: Tensor, order: Tensor, sizes: Sequence[int], steps: int) -> Tensor:
    """Rows of all steps (P, …) → (B, steps, …) in the order before `pack`, 0 after the last step of a sequence."""
    rows = torch.cat([order[:size] for size in sizes])
    columns = torch.repeat_interleave(torch.tensor(sizes, device=order.device))
    return packed.new_zeros(len(order), steps, *packed.shape[1:]).index_put((rows, columns), packed)


def _rows_of_steps(sizes: Sequence[int]) -> list[slice]:
    starts = [sum(sizes[:t]) for t in range(len(sizes) + 1)]
    return [slice(*ends) for ends in itertools.pairwise(starts)]


def _sigmoids(keys: Tensor, query: Tensor, out: Tensor) -> Tensor:
    """σ(2 (keys + query)), (n, N, A), which `AdditiveAttention.forward` explains."""
    return torch.add(keys, query.unsqueeze(1), out=out).mul_(2).sigmoid_()


def _through_tanh(gradient: Tensor, value: Tensor) -> Tensor:
    """The gradient before a tanh from the one after it."""
    before: Tensor = torch.ops.aten.tanh_backward(gradient, value)
    return before
