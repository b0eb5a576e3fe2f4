"""Refined gates: a gate's output joined, by + or ×, with the input feature itself (arXiv 2002.11338, figure 1).

    vanilla gate   g  = σ(W x_t + U h_{t-1} + b)
    refined gate   g' = g ⋄ x_t          ⋄ is + or ×, element-wise

Nothing follows ⋄: no clip, no second σ. A refined gate is therefore signed: in [−1, 1] for × and [−1, 2] for + while
the feature stays in [−1, 1].

The paper's text does not fix what happens when d_in ≠ d_hidden, nor bounds x_t. Both are choices of this library,
`feature` and `squash` below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Refine = Literal["none", "add", "mul"]
FeatureMap = Literal["identity", "linear"]
Squash = Literal["none", "tanh", "layernorm"]

LSTM_GATES = ("input", "forget", "cell", "output")  # order of the blocks in torch's stacked weights; "cell" is no gate


@dataclass(frozen=True)
class RefinedGate:
    """What is refined, and how.

    The literal equation of the paper is `RefinedGate("mul", ("input", "output"), "identity", "none")`.

    Attributes:
        refine: `"add"`, `"mul"`, or `"none"` for vanilla gates.
        gates: names of the refined gates. The default, input and output, is how the paper's one public
            implementation (spaGO) reads it.
        feature: `"identity"` joins x_t itself and needs d_in = d_hidden; `"linear"` (default, because it fits any
            sizes) joins a learned map of it without bias, one map for all gates.
        squash: applied to the feature before ⋄. `"tanh"` (default) keeps the gate in the range of the paper's figure;
            with `"none"` and unbounded features, |h| under × grows with |x|. `"layernorm"` has no learned scale.
    """

    refine: Refine = "mul"
    gates: tuple[str, ...] = ("input", "output")
    feature: FeatureMap = "linear"
    squash: Squash = "tanh"

    def check(self, known_gates: tuple[str, ...], input_size: int, hidden_size: int) -> None:
        """Raise ValueError when the choices do not fit a unit with these gates and sizes."""
        for name, value, allowed in (
            ("refine", self.refine, ("none", "add", "mul")),
            ("feature", self.feature, ("identity", "linear")),
            ("squash", self.squash, ("none", "tanh", "layernorm")),
        ):
            if value not in allowed:
                raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(repr, allowed))}")
        unknown = [gate for gate in self.gates if gate not in known_gates]
        if unknown:
            raise ValueError(f"gates={self.gates!r}: unknown {unknown[0]!r}; choose from {', '.join(known_gates)}")
        if len(set(self.gates)) != len(self.gates):
            raise ValueError(f"gates={self.gates!r}: a gate is named twice")
        if self.refine != "none" and not self.gates:
            raise ValueError(f"gates is empty but refine={self.refine!r}: name a gate or set refine='none'")
        if self.refine != "none" and self.feature == "identity" and input_size != hidden_size:
            raise ValueError(
                f"feature='identity' needs input_size = hidden_size, got {input_size} and {hidden_size}: "
                "use feature='linear'"
            )

    @property
    def has_weight(self) -> bool:
        """Whether the feature map is learned."""
        return self.refine != "none" and self.feature == "linear"

    def map_feature(self, x: Tensor, weight: Tensor | None) -> Tensor | None:
        """The feature that is joined to the gates: (..., d_in) → (..., d_hidden); None for vanilla gates."""
        if self.refine == "none":
            return None
        feature = x if weight is None else F.linear(x, weight)
        if self.squash == "tanh":
            return torch.tanh(feature)
        if self.squash == "layernorm":
            return F.layer_norm(feature, feature.shape[-1:])
        return feature

    def join(self, name: str, gate: Tensor, feature: Tensor | None) -> Tensor:
        """g ⋄ x for the gate called `name`; `gate` unchanged when it is not refined."""
        if feature is None or name not in self.gates:
            return gate
        return gate + feature if self.refine == "add" else gate * feature


def lstm_pointwise(
    gate: RefinedGate, preactivations: Tensor, cell_state: Tensor, feature: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The element-wise part of one LSTM step.

    Args:
        gate: which gates are refined, and how.
        preactivations: (B, 4H), W x + U h + b in torch's block order input, forget, cell, output.
        cell_state: (B, H), c_{t-1}.
        feature: (B, H) from `RefinedGate.map_feature`, or None.

    Returns:
        (h_t, c_t), each (B, H).
    """
    i, f, g, o = preactivations.chunk(4, dim=-1)
    i = gate.join("input", torch.sigmoid(i), feature)
    f = gate.join("forget", torch.sigmoid(f), feature)
    o = gate.join("output", torch.sigmoid(o), feature)
    cell_state = f * cell_state + i * torch.tanh(g)
    return o * torch.tanh(cell_state), cell_state


def feature_weight(input_size: int, hidden_size: int, device: object = None, dtype: object = None) -> nn.Parameter:
    """Weight (H, I) of a linear feature map, initialised as torch initialises its recurrent layers."""
    weight = torch.empty(hidden_size, input_size, device=device, dtype=dtype)  # type: ignore[call-overload]
    bound = 1 / math.sqrt(hidden_size)
    return nn.Parameter(nn.init.uniform_(weight, -bound, bound))
