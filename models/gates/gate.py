"""Refined gates: a gate's output joined, by + or ×, with the input feature itself (arXiv 2002.11338, figure 1).

    vanilla gate   g  = σ(W x_t + U h_{t-1} + b)
    refined gate   g' = g ⋄ x_t          ⋄ is + or ×, element-wise

Nothing follows ⋄: no clip, no second σ. A refined gate is therefore signed: in [−1, 1] for × and [−1, 2] for + while
the feature stays in [−1, 1].

The paper's text does not fix what happens when d_in ≠ d_hidden, nor bounds x_t. Both are choices of this library,
`feature` and `activation` below. docs/gates.md tells the paper's part from ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Refine = Literal["none", "add", "mul", "ur"]
FeatureMap = Literal["identity", "linear"]
Activation = Literal["none", "tanh", "layernorm"]


@dataclass(frozen=True)
class RefinedGate:
    """What is refined, and how.

    The literal equation of the paper is `RefinedGate("mul", ("input", "output"), "identity", "none")`.

    Attributes:
        refine: `"add"`, `"mul"`, or `"none"` for vanilla gates. `"ur"` is a baseline of other authors, the
            uniform-refine gate of Gu et al. 2020 (arXiv 1910.09890): see `uniform_refine`.
        gates: names of the gates that `"add"` and `"mul"` refine. The default, input and output of an LSTM, is how
            the paper's one public implementation (spaGO) reads it.
        feature: `"identity"` joins x_t itself and needs d_in = d_hidden; `"linear"` (default, because it fits any
            sizes) joins a learned map of it without bias, one map for all gates.
        activation: applied to the feature before ⋄. `"tanh"` (default) keeps the gate in the range of the paper's
            figure; with `"none"` and unbounded features, |h| under × grows with |x|. `"layernorm"` learns no scale.
    """

    refine: Refine = "mul"
    gates: tuple[str, ...] = ("input", "output")
    feature: FeatureMap = "linear"
    activation: Activation = "tanh"

    watched: ClassVar[bool] = False  # True in a gate that records what passes: gates.statistics

    def check(self, known_gates: tuple[str, ...], input_size: int, hidden_size: int) -> None:
        """Raise ValueError when the choices do not fit a unit with these gates and sizes."""
        for name, value, allowed in (
            ("refine", self.refine, ("none", "add", "mul", "ur")),
            ("feature", self.feature, ("identity", "linear")),
            ("activation", self.activation, ("none", "tanh", "layernorm")),
        ):
            if value not in allowed:
                raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(repr, allowed))}")
        if not self.joins:
            return
        unknown = [gate for gate in self.gates if gate not in known_gates]
        if unknown:
            raise ValueError(f"gates={self.gates!r}: unknown {unknown[0]!r}; choose from {', '.join(known_gates)}")
        if len(set(self.gates)) != len(self.gates):
            raise ValueError(f"gates={self.gates!r}: a gate is named twice")
        if not self.gates:
            raise ValueError(f"gates is empty but refine={self.refine!r}: name a gate or set refine='none'")
        if self.feature == "identity" and input_size != hidden_size:
            raise ValueError(
                f"feature='identity' needs input_size = hidden_size, got {input_size} and {hidden_size}: "
                "use feature='linear'"
            )

    @property
    def joins(self) -> bool:
        """Whether a feature is joined to gates: `"add"` and `"mul"`."""
        return self.refine in ("add", "mul")

    @property
    def has_weight(self) -> bool:
        """Whether the feature map is learned."""
        return self.joins and self.feature == "linear"

    def refines(self, name: str) -> bool:
        """Whether the gate called `name` is joined with the feature."""
        return self.joins and name in self.gates

    def map_feature(self, x: Tensor, weight: Tensor | None) -> Tensor | None:
        """The feature that is joined to the gates: (..., d_in) → (..., d_hidden); None where none is joined."""
        if not self.joins:
            return None
        return self.activate(x if weight is None else F.linear(x, weight))

    def activate(self, feature: Tensor) -> Tensor:
        """The activation of a mapped feature (..., d_hidden)."""
        if self.activation == "tanh":
            return torch.tanh(feature)
        if self.activation == "layernorm":
            return F.layer_norm(feature, feature.shape[-1:])
        return feature

    def join(self, name: str, gate: Tensor, feature: Tensor | None) -> Tensor:
        """g ⋄ x for the gate called `name`; `gate` unchanged when it is not refined."""
        if feature is None or not self.refines(name):
            return gate
        return gate + feature if self.refine == "add" else gate * feature

    def uniform_refine(self, name: str, forget: Tensor, refine: Tensor) -> Tensor:
        """g = f + f (1 − f)(2 r − 1), the effective gate of Gu et al. 2020, from two vanilla gates f and r.

        In [f², 1 − (1 − f)²]: r moves f towards either end, where f's own gradient vanishes.
        """
        return forget + forget * (1 - forget) * (2 * refine - 1)

    def at(self, place: str) -> RefinedGate:
        """The gate as used at one layer and direction; the same everywhere, but a recorder tells them apart."""
        return self

    def note_state(self, before: Tensor, after: Tensor) -> None:
        """Called with h_{t-1} and h_t of every step of a cell or a plain loop; only a recorder listens."""


def feature_weight(input_size: int, hidden_size: int, device: object = None, dtype: object = None) -> nn.Parameter:
    """Weight (H, I) of a linear feature map, initialised as torch initialises its recurrent layers."""
    weight = torch.empty(hidden_size, input_size, device=device, dtype=dtype)  # type: ignore[call-overload]
    bound = 1 / math.sqrt(hidden_size)
    return nn.Parameter(nn.init.uniform_(weight, -bound, bound))
