"""Recurrent layers with refined gates and torch's own signatures. GRU and MGU layers belong here beside the LSTM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from models.gates import FeatureMap, Refine, RefinedGate, Squash, feature_weight, lstm_pointwise


class RefinedLSTM(nn.LSTM):
    """`nn.LSTM` whose gates can be refined (arXiv 2002.11338).

    Signature, inputs, outputs and parameter names are `nn.LSTM`'s, PackedSequence and unbatched input included. With
    `refine="none"` it runs torch's own kernels on the same parameters, so state dicts load both ways. Otherwise
    `feature="linear"` adds `weight_feature_l{k}` (hidden_size, input size of layer k), with `_reverse` for the
    second direction.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional: as for `nn.LSTM`.
        refine, gates, feature, squash: see `models.gates.RefinedGate`.

    Raises:
        ValueError: unknown choice or gate; `feature="identity"` where a layer's input size is not hidden_size;
            `proj_size`, which has no refined counterpart.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        refine: Refine = "mul",
        gates: tuple[str, ...] = ("input", "output"),
        feature: FeatureMap = "linear",
        squash: Squash = "tanh",
    ) -> None:
        gate = RefinedGate(refine, tuple(gates), feature, squash)
        if proj_size and refine != "none":
            raise ValueError(f"proj_size={proj_size} has no refined counterpart: leave it 0 or set refine='none'")
        directions = 2 if bidirectional else 1
        layer_inputs = [input_size] + [hidden_size * directions] * (num_layers - 1)
        for layer_input in layer_inputs:
            gate.check(("input", "forget", "output"), layer_input, hidden_size)
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            proj_size=proj_size,
            device=device,
            dtype=dtype,
        )
        self.gate = gate
        if gate.has_weight:
            for layer, layer_input in enumerate(layer_inputs):
                for suffix in self._suffixes(layer):
                    weight = feature_weight(layer_input, hidden_size, device, dtype)
                    self.register_parameter(f"weight_feature_{suffix}", weight)

    def _suffixes(self, layer: int) -> list[str]:
        return [f"l{layer}", f"l{layer}_reverse"] if self.bidirectional else [f"l{layer}"]

    def forward(self, input: Any, hx: tuple[Tensor, Tensor] | None = None) -> Any:
        """As `nn.LSTM.forward`: output and (h_n, c_n)."""
        if self.gate.refine == "none":
            return super().forward(input, hx)
        if isinstance(input, PackedSequence):
            state = self._initial_state(int(input.batch_sizes[0]), input.data, hx, input.sorted_indices)
            data, h_n, c_n = self._run(input.data, input.batch_sizes.tolist(), state)
            if input.unsorted_indices is not None:
                h_n, c_n = h_n.index_select(1, input.unsorted_indices), c_n.index_select(1, input.unsorted_indices)
            return PackedSequence(data, input.batch_sizes, input.sorted_indices, input.unsorted_indices), (h_n, c_n)
        if input.dim() not in (2, 3):
            raise ValueError(f"RefinedLSTM: expected input of 2 or 3 dimensions, got {tuple(input.shape)}")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {input.size(-1)}"
            )
        unbatched = input.dim() == 2
        if unbatched:
            input = input.unsqueeze(1)
            hx = None if hx is None else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
        elif self.batch_first:
            input = input.transpose(0, 1)
        T, B, _ = input.shape
        if T == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        data, h_n, c_n = self._run(
            input.reshape(T * B, self.input_size), [B] * T, self._initial_state(B, input, hx, None)
        )
        output = data.view(T, B, data.shape[-1])
        if unbatched:
            return output.squeeze(1), (h_n.squeeze(1), c_n.squeeze(1))
        return (output.transpose(0, 1) if self.batch_first else output), (h_n, c_n)

    def _initial_state(
        self, batch: int, like: Tensor, hx: tuple[Tensor, Tensor] | None, sorted_indices: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        expected = (self.num_layers * (2 if self.bidirectional else 1), batch, self.hidden_size)
        if hx is None:
            zeros = like.new_zeros(expected)
            return zeros, zeros
        for name, tensor in zip(("h_0", "c_0"), hx, strict=True):
            if tuple(tensor.shape) != expected:
                raise RuntimeError(f"{name}: expected {expected}, got {tuple(tensor.shape)}")
        if sorted_indices is not None:
            return hx[0].index_select(1, sorted_indices), hx[1].index_select(1, sorted_indices)
        return hx

    def _run(
        self, data: Tensor, batch_sizes: Sequence[int], state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All layers over packed rows (sum of batch_sizes, I); a padded batch is the case of equal batch sizes."""
        h_n: list[Tensor] = []
        c_n: list[Tensor] = []
        for layer in range(self.num_layers):
            outputs = []
            for reverse, suffix in enumerate(self._suffixes(layer)):
                h_0, c_0 = state[0][len(h_n)], state[1][len(c_n)]
                output, h, c = self._run_direction(data, batch_sizes, h_0, c_0, suffix, bool(reverse))
                outputs.append(output)
                h_n.append(h)
                c_n.append(c)
            data = torch.cat(outputs, dim=-1)
            if self.dropout and self.training and layer < self.num_layers - 1:
                data = F.dropout(data, self.dropout, training=True)
        return data, torch.stack(h_n), torch.stack(c_n)

    def _run_direction(
        self, data: Tensor, batch_sizes: Sequence[int], h_0: Tensor, c_0: Tensor, suffix: str, reverse: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        bias = getattr(self, f"bias_ih_{suffix}") + getattr(self, f"bias_hh_{suffix}") if self.bias else None
        # Everything that does not depend on h is one GEMM over all steps.
        projected = F.linear(data, getattr(self, f"weight_ih_{suffix}"), bias).split(list(batch_sizes))
        feature = self.gate.map_feature(data, getattr(self, f"weight_feature_{suffix}", None))
        assert feature is not None
        features = feature.split(list(batch_sizes))
        recurrent = getattr(self, f"weight_hh_{suffix}").t()

        # Rows are sorted by length. Forwards, finished rows leave at the end of the batch; backwards, they join there.
        steps = range(len(batch_sizes))
        first = batch_sizes[-1] if reverse else batch_sizes[0]
        h, c = h_0[:first], c_0[:first]
        outputs: list[Tensor] = [h] * len(batch_sizes)
        finished: list[tuple[Tensor, Tensor]] = []
        for t in reversed(steps) if reverse else steps:
            rows, live = batch_sizes[t], h.shape[0]
            if rows < live:
                finished.append((h[rows:], c[rows:]))
                h, c = h[:rows], c[:rows]
            elif rows > live:
                h, c = torch.cat([h, h_0[live:rows]]), torch.cat([c, c_0[live:rows]])
            h, c = lstm_pointwise(self.gate, projected[t] + h @ recurrent, c, features[t])
            outputs[t] = h
        if finished:
            h = torch.cat([h, *(done[0] for done in reversed(finished))])
            c = torch.cat([c, *(done[1] for done in reversed(finished))])
        return torch.cat(outputs), h, c

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.gate}"
