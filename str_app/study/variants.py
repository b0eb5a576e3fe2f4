"""What the studies compare: three units, each with five kinds of gates."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from str_app.models.gates.initialization import init_chrono_
from str_app.models.gates.layers import LAYERS

UnitName = Literal["LSTM", "GRU", "MGU"]
GateName = Literal["none", "add", "mul", "ur", "chrono"]
UNITS: tuple[UnitName, ...] = get_args(UnitName)
GATES: tuple[GateName, ...] = get_args(GateName)


@dataclass(frozen=True)
class Variant:
    """A unit and its gates.

    Attributes:
        unit: LSTM, GRU or MGU.
        gates: `none` (vanilla), `add` and `mul` (refined, defaults otherwise), and the baselines of other authors: `ur`
            (uniform-refine gates with their initialisation) and `chrono` (vanilla with chrono initialisation).
    """

    unit: UnitName
    gates: GateName

    def __str__(self) -> str:
        return f"{self.unit}-{self.gates}"

    def layer(self, input_size: int, hidden_size: int, longest: int, layers: int = 1) -> nn.Module:
        """The layers, batch second; `longest` is the dependency that chrono initialisation is told."""
        refine = "none" if self.gates == "chrono" else self.gates
        made = LAYERS[self.unit](input_size, hidden_size, layers, refine=refine)
        return init_chrono_(made, longest) if self.gates == "chrono" else made


def all_variants(units: tuple[UnitName, ...] = UNITS, gates: tuple[GateName, ...] = GATES) -> list[Variant]:
    """Every unit with every kind of gates."""
    return [Variant(unit, kind) for unit, kind in itertools.product(units, gates)]


def equal_size(build: Callable[[int], nn.Module], parameters: int, hidden_size: int) -> int:
    """The hidden size, at most `hidden_size`, whose network's number of parameters comes nearest to `parameters`.

    Refined and uniform-refine gates have more weights than vanilla ones at the same hidden size; so that a study
    compares gates and not sizes, each gets as many units as the vanilla network's parameters pay for.
    """
    low, high = 1, hidden_size
    while low < high:
        middle = (low + high) // 2
        if count_parameters(build(middle)) < parameters:
            low = middle + 1
        else:
            high = middle
    below = max(1, low - 1)
    return min((below, low), key=lambda size: abs(count_parameters(build(size)) - parameters))


def count_parameters(module: nn.Module) -> int:
    """How many numbers are trained; shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())
