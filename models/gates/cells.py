"""One step of a recurrent unit with refined gates."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from str_app.models.gates.gate import RefinedGate, feature_weight
from str_app.models.gates.initialization import init_uniform_
from str_app.models.gates.units import GRU, LSTM, MGU, GateOptions, State, Unit


class _RefinedCell(nn.RNNCellBase):
    """Base of the three cells: `unit` defines the equations, the second base class torch's parameters."""

    unit: Unit
    gate: RefinedGate
    weight_feature: Tensor | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Unpack[GateOptions],
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device=device, dtype=dtype)  # type: ignore[call-arg]
        gate = self.unit.make_gate(options)
        gate.check(self.unit.gates, self.input_size, self.hidden_size)
        self.gate = gate
        if gate.refine == "ur":
            rows = len(self.unit.blocks_of(gate)) * self.hidden_size
            for name, parameter in list(self.named_parameters()):
                setattr(self, name, nn.Parameter(parameter.new_empty(rows, *parameter.shape[1:])))
            self.reset_parameters()
        weight = feature_weight(self.input_size, self.hidden_size, device, dtype) if gate.has_weight else None
        self.register_parameter("weight_feature", weight)

    def reset_parameters(self) -> None:
        """torch's initialisation; uniform-refine gates get their own biases."""
        super().reset_parameters()
        if self.bias and "gate" in self.__dict__ and self.gate.refine == "ur":
            init_uniform_(self)

    def _step(self, input: Tensor, state: State | None) -> State:
        if input.dim() not in (1, 2):
            raise ValueError(f"{type(self).__name__}: expected input of 1 or 2 dimensions, got {tuple(input.shape)}")
        expected = (*input.shape[:-1], self.hidden_size)
        if state is None:
            state = (input.new_zeros(expected),) * len(self.unit.states)
        self.unit.check_states(state, expected)
        gate = self.gate.recorded_as("cell")
        projected = F.linear(input, self.weight_ih, self.bias_ih)
        feature = gate.map_feature(input, self.weight_feature)
        next_state = self.unit.step(gate, projected, state, feature, self.weight_hh, self.bias_hh)
        gate.record_state(state[0], next_state[0])
        return next_state

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.gate}"


class RefinedLSTMCell(_RefinedCell, nn.LSTMCell):
    """`nn.LSTMCell` whose gates can be refined.

    With `refine="none"` it is `nn.LSTMCell`: same parameters, same outputs. Otherwise `feature="linear"` adds the
    parameter `weight_feature` (hidden_size, input_size).

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t and c_t.
        bias: whether the gates have biases.
        refine, gates, feature, activation: see `gate.RefinedGate`; gates from "input", "forget", "output". Defaults
            are those of `RefinedLSTM`, which explains them.
        squash: deprecated name of `activation`.

    Raises:
        ValueError: unknown choice or gate; `feature="identity"` with input_size ≠ hidden_size.
    """

    unit = LSTM

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Input (B, I) or (I,) and (h, c), each (B, H) or (H,), by default zeros → the next (h, c)."""
        if self.gate.refine == "none" and self.gate.has_kernels:
            h, c = nn.LSTMCell.forward(self, input, hx)
        else:
            h, c = self._step(input, hx)
        return h, c


class RefinedGRUCell(_RefinedCell, nn.GRUCell):
    """`nn.GRUCell` whose gates can be refined; see `RefinedLSTMCell`. Gates: "reset", "update".

    `refine="ur"` has a fourth block of weights: the gate that refines the update gate.
    """

    unit = GRU

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Input (B, I) or (I,) and h, (B, H) or (H,), by default zeros → the next h."""
        if self.gate.refine == "none" and self.gate.has_kernels:
            return nn.GRUCell.forward(self, input, hx)
        return self._step(input, None if hx is None else (hx,))[0]


class _MGUCell(nn.RNNCellBase):
    """The parameters of an MGU, in the form of torch's cells: torch has no MGU."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None):
        super().__init__(input_size, hidden_size, bias, num_chunks=2, device=device, dtype=dtype)


class RefinedMGUCell(_RefinedCell, _MGUCell):
    """The minimal gated unit of Zhou et al. 2016 (arXiv 1603.09420), whose only gate, "forget", can be refined.

    Arguments as for `RefinedGRUCell`. Weights are stacked as in torch, blocks "forget" and "new": `weight_ih` (2 H, I),
    `weight_hh` (2 H, H), `bias_ih`, `bias_hh` (2 H,), and `weight_feature` as in the other cells.
    """

    unit = MGU

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Input (B, I) or (I,) and h, (B, H) or (H,), by default zeros → the next h."""
        return self._step(input, None if hx is None else (hx,))[0]


CELLS: dict[str, type[_RefinedCell]] = {"LSTM": RefinedLSTMCell, "GRU": RefinedGRUCell, "MGU": RefinedMGUCell}
