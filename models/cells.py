"""One step of a recurrent unit with refined gates. GRU and MGU cells belong here beside the LSTM's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.gates import FeatureMap, Refine, RefinedGate, Squash, feature_weight, lstm_pointwise


class RefinedLSTMCell(nn.LSTMCell):
    """`nn.LSTMCell` whose gates can be refined.

    With `refine="none"` it is `nn.LSTMCell`: same parameters, same outputs. Otherwise one parameter is added when
    `feature="linear"`: `weight_feature` (hidden_size, input_size).

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t and c_t.
        bias: whether the vanilla part has biases.
        refine, gates, feature, squash: see `models.gates.RefinedGate`.

    Raises:
        ValueError: unknown choice or gate, or `feature="identity"` with input_size ≠ hidden_size.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        refine: Refine = "mul",
        gates: tuple[str, ...] = ("input", "output"),
        feature: FeatureMap = "linear",
        squash: Squash = "tanh",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        gate = RefinedGate(refine, tuple(gates), feature, squash)
        gate.check(("input", "forget", "output"), input_size, hidden_size)
        super().__init__(input_size, hidden_size, bias, device=device, dtype=dtype)
        self.gate = gate
        self.weight_feature = feature_weight(input_size, hidden_size, device, dtype) if gate.has_weight else None

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """(B, I) or (I,) and an optional (h, c), each (B, H) or (H,) → the next (h, c). Zeros are the default state."""
        if self.gate.refine == "none":
            h, c = super().forward(input, hx)
            return h, c
        if hx is None:
            zeros = input.new_zeros(*input.shape[:-1], self.hidden_size)
            hx = (zeros, zeros)
        h, c = hx
        preactivations = F.linear(input, self.weight_ih, self.bias_ih) + F.linear(h, self.weight_hh, self.bias_hh)
        feature = self.gate.map_feature(input, self.weight_feature)
        return lstm_pointwise(self.gate, preactivations, c, feature)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.gate}"
