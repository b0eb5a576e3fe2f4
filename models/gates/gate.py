"""Refined gates: the output of a gate, plus or times the input feature (arXiv 2002.11338, figure 1).

    vanilla gate   g  = σ(W x_t + U h_{t-1} + b)
    refined gate   g' = g ⋄ x_t          ⋄ is + or ×, element-wise

There is no clipping and no second σ, so a refined gate can be negative or above 1: in [−1, 1] for × and [−1, 2] for +
if the feature is in [−1, 1].

The paper does not say what to do if d_in ≠ d_hidden, and does not bound x_t. `feature` and `activation` below are this
library's choices; docs/explanation/gates.md says which parts are the paper's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Refine = Literal["none", "add", "mul", "ur"]
FeatureMap = Literal["identity", "linear"]
Activation = Literal["none", "tanh", "sigmoid", "layernorm"]


@dataclass(frozen=True)
class RefinedGate:
    """Which gates are refined, and how.

    The paper's form has `refine` `"add"` or `"mul"`, `feature="identity"` and `activation="none"`; which gates is open.

    Attributes:
        refine: `"add"` or `"mul"` for ⋄ = + or ×; `"none"` for vanilla gates. `"ur"` is a baseline, the
            uniform-refine gate of Gu et al. 2020 (arXiv 1910.09890): see `uniform_refine`.
        gates: names of the gates that `"add"` and `"mul"` refine. The default, input and output gate of an LSTM, is
            that of spaGO, the only public implementation of the paper.
        feature: `"linear"` (default, since it works for all sizes) is a learned projection of x_t without bias, shared
            by all gates; `"identity"` is x_t itself and needs d_in = d_hidden.
        activation: applied to the feature before ⋄. `"tanh"` keeps gates in the range of the paper's figure;
            `"sigmoid"` keeps them from being negative: in [0, 1] for ×, in [0, 2] for +. With `"none"`, |h| grows with
            |x| under ×. `"layernorm"` has no learned scale.
    """

    refine: Refine = "mul"
    gates: tuple[str, ...] = ("input", "output")
    feature: FeatureMap = "linear"
    activation: Activation = "tanh"

    def check(self, known_gates: tuple[str, ...], input_size: int, hidden_size: int) -> None:
        """Raise ValueError if a choice is unknown, or does not fit a unit with these gates and sizes."""
        for name, value, allowed in (
            ("refine", self.refine, get_args(Refine)),
            ("feature", self.feature, get_args(FeatureMap)),
            ("activation", self.activation, get_args(Activation)),
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
    def has_kernels(self) -> bool:
        """Whether kernels may stand for this gate; not for one of a subclass, whose equations or records they lack."""
        return type(self) is RefinedGate

    @property
    def joins(self) -> bool:
        """Whether gates are joined with a feature: for `"add"` and `"mul"`."""
        return self.refine in ("add", "mul")

    @property
    def has_weight(self) -> bool:
        """Whether the feature is a learned projection."""
        return self.joins and self.feature == "linear"

    def refines(self, name: str) -> bool:
        """Whether the gate called `name` is joined with the feature."""
        return self.joins and name in self.gates

    def map_feature(self, x: Tensor, weight: Tensor | None) -> Tensor | None:
        """The feature that gates are joined with: x (..., d_in) → (..., d_hidden); None if no gate is refined."""
        if not self.joins:
            return None
        return self.activate(x if weight is None else F.linear(x, weight))

    def activate(self, feature: Tensor) -> Tensor:
        """Apply the activation to a feature (..., d_hidden)."""
        if self.activation == "tanh":
            return torch.tanh(feature)
        if self.activation == "sigmoid":
            return torch.sigmoid(feature)
        if self.activation == "layernorm":
            return F.layer_norm(feature, feature.shape[-1:])
        return feature

    def join(self, name: str, gate: Tensor, feature: Tensor | None) -> Tensor:
        """g ⋄ x for the gate called `name`; `gate` itself if that one is not refined."""
        if feature is None or not self.refines(name):
            return gate
        return gate + feature if self.refine == "add" else gate * feature

    def uniform_refine(self, name: str, forget: Tensor, refine: Tensor) -> Tensor:
        """g = f + f (1 − f)(2 r − 1), the effective gate of Gu et al. 2020, from vanilla gates f and r.

        Its range is [f², 1 − (1 − f)²]. Near saturation of f, where the gradient of f vanishes, r still changes it.
        """
        return forget + forget * (1 - forget) * (2 * refine - 1)

    def recorded_as(self, name: str) -> RefinedGate:
        """The gate to use for one cell, or one layer and direction; recording gates keep separate records by name."""
        return self

    def record_state(self, before: Tensor, after: Tensor) -> None:
        """Called with h_{t-1} and h_t after each step of a cell or the plain loop; only recording gates use it."""


def feature_weight(input_size: int, hidden_size: int, device: object = None, dtype: object = None) -> nn.Parameter:
    """The weight (H, I) of a linear feature, initialised like torch's recurrent layers: U(−1/√H, 1/√H)."""
    weight = torch.empty(hidden_size, input_size, device=device, dtype=dtype)  # type: ignore[call-overload]
    bound = 1 / math.sqrt(hidden_size)
    return nn.Parameter(nn.init.uniform_(weight, -bound, bound))
