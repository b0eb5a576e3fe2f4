"""The equations of one step of LSTM, GRU and MGU with refined gates: the reference that kernels are tested against.

The blocks of stacked weights are in torch's order. `projected` is W_ih x + b_ih of one step, (B, blocks × H); `feature`
is (B, H), from `RefinedGate.map_feature`, or None; states are (B, H).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor
from torch.nn import functional as F

from str_app.models.gates.gate import Activation, FeatureMap, Refine, RefinedGate

State = tuple[Tensor, ...]  # (h,) or (h, c)
Step = Callable[[RefinedGate, Tensor, State, Tensor | None, Tensor, Tensor | None], State]


class GateOptions(TypedDict, total=False):
    """Keyword arguments of every cell and layer; `RefinedGate` and `RefinedLSTM` explain them.

    Attributes:
        refine, gates, activation: None is the unit's default.
        feature: by default `"linear"`.
        squash: deprecated name of `activation`.
    """

    refine: Refine | None
    gates: tuple[str, ...] | None
    feature: FeatureMap
    activation: Activation | None
    squash: Activation | None


@dataclass(frozen=True)
class Unit:
    """A kind of recurrent unit.

    Attributes:
        name: LSTM, GRU or MGU.
        gates: names of its gates.
        keeps: name of the gate that a uniform-refine gate refines: what it keeps of the state.
        blocks: names of the blocks of its stacked weights, gates and candidate, in order.
        default_refine: default of `refine`; measured in docs/results/studies.md.
        default_gates: default of `gates`.
        states: names of its states.
        step: (gate, projected, states, feature, weight_hh, bias_hh) → the next states.
        default_activation: default of `activation`.
    """

    name: str
    gates: tuple[str, ...]
    keeps: str
    blocks: tuple[str, ...]
    default_refine: Refine
    default_gates: tuple[str, ...]
    states: tuple[str, ...]
    step: Step
    default_activation: Activation = RefinedGate.activation

    def make_gate(self, options: GateOptions) -> RefinedGate:
        """The gate of a cell or layer."""
        unknown = options.keys() - GateOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"unexpected keyword argument {min(unknown)!r}")
        activation, squash = options.get("activation"), options.get("squash")
        if squash is not None:
            warnings.warn("squash is deprecated: use activation", DeprecationWarning, stacklevel=3)
            activation = squash
        refine, gates = options.get("refine"), options.get("gates")
        if isinstance(gates, str):
            raise ValueError(f"gates={gates!r}: give a tuple of names, such as ({gates!r},)")
        return RefinedGate(
            self.default_refine if refine is None else refine,
            self.default_gates if gates is None else tuple(gates),
            options.get("feature", RefinedGate.feature),
            self.default_activation if activation is None else activation,
        )

    def check_states(self, states: State, expected: tuple[int, ...], suffix: str = "") -> None:
        """Raise RuntimeError for a state of another shape, which would be broadcast; `suffix` is of its name."""
        for name, state in zip(self.states, states, strict=True):
            if tuple(state.shape) != expected:
                raise RuntimeError(f"{name}{suffix}: expected {expected}, got {tuple(state.shape)}")

    def blocks_of(self, gate: RefinedGate) -> tuple[str, ...]:
        """The blocks of the stacked weights with this gate: uniform-refine gates need a `"refine"` block.

        In the LSTM it replaces the input gate's block, since the input gate is 1 − g (as in Gu et al.: the parameter
        count of a vanilla LSTM). GRU and MGU have one block more.
        """
        if gate.refine != "ur":
            return self.blocks
        if "input" in self.blocks:
            return tuple("refine" if block == "input" else block for block in self.blocks)
        return (*self.blocks, "refine")


def lstm_step(
    gate: RefinedGate,
    projected: Tensor,
    state: State,
    feature: Tensor | None,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
) -> State:
    """c = f' c + i' tanh(ã); h = o' tanh(c) (Hochreiter & Schmidhuber 1997, with Gers et al.'s forget gate)."""
    h, c = state
    i, f, g, o = (projected + F.linear(h, weight_hh, bias_hh)).chunk(4, dim=-1)
    if gate.refine == "ur":
        kept = gate.uniform_refine("forget", torch.sigmoid(f), torch.sigmoid(i))
        c = kept * c + (1 - kept) * torch.tanh(g)
    else:
        i = gate.join("input", torch.sigmoid(i), feature)
        f = gate.join("forget", torch.sigmoid(f), feature)
        c = f * c + i * torch.tanh(g)
    o = gate.join("output", torch.sigmoid(o), feature)
    return o * torch.tanh(c), c


def gru_step(
    gate: RefinedGate,
    projected: Tensor,
    state: State,
    feature: Tensor | None,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
) -> State:
    """n = tanh(ã + r' (U h + b)); h = (1 − z') n + z' h: torch's GRU, with the reset gate after the product."""
    (h,) = state
    a, u = projected.chunk(4 if gate.refine == "ur" else 3, dim=-1), F.linear(h, weight_hh, bias_hh)
    v = u.chunk(len(a), dim=-1)
    r = gate.join("reset", torch.sigmoid(a[0] + v[0]), feature)
    z = torch.sigmoid(a[1] + v[1])
    if gate.refine == "ur":
        z = gate.uniform_refine("update", z, torch.sigmoid(a[3] + v[3]))
    else:
        z = gate.join("update", z, feature)
    n = torch.tanh(a[2] + r * v[2])
    return (n + z * (h - n),)


def mgu_step(
    gate: RefinedGate,
    projected: Tensor,
    state: State,
    feature: Tensor | None,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
) -> State:
    """n = tanh(ã + U (f' h)); h = (1 − f') h + f' n: the minimal gated unit (Zhou et al. 2016, arXiv 1603.09420)."""
    (h,) = state
    size = h.shape[-1]
    if bias_hh is not None:
        projected = projected + bias_hh
    a = projected.chunk(3 if gate.refine == "ur" else 2, dim=-1)
    f = torch.sigmoid(a[0] + F.linear(h, weight_hh[:size]))
    if gate.refine == "ur":
        f = gate.uniform_refine("forget", f, torch.sigmoid(a[2] + F.linear(h, weight_hh[2 * size :])))
    else:
        f = gate.join("forget", f, feature)
    n = torch.tanh(a[1] + F.linear(f * h, weight_hh[size : 2 * size]))
    return (h + f * (n - h),)


LSTM = Unit(
    "LSTM",
    ("input", "forget", "output"),
    "forget",
    ("input", "forget", "cell", "output"),
    "add",
    ("input", "output"),
    ("h", "c"),
    lstm_step,
)
# × on the update gate would erase the state at first: an untrained feature is near 0, and z' = 0 keeps nothing of h.
GRU = Unit("GRU", ("reset", "update"), "update", ("reset", "update", "new"), "add", ("reset",), ("h",), gru_step)
# h is multiplied by 1 − f', so a feature that can be negative lets h grow without bound.
MGU = Unit("MGU", ("forget",), "forget", ("forget", "new"), "mul", ("forget",), ("h",), mgu_step, "sigmoid")
