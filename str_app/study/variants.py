"""The variants that the studies compare: three units, each with five kinds of gates; the MGU with seven."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from str_app.models.gates.initialization import init_chrono_
from str_app.models.gates.layers import LAYERS
from str_app.models.gates.units import GateOptions

UnitName = Literal["LSTM", "GRU", "MGU"]
GateName = Literal["none", "add", "mul", "add-sigmoid", "mul-sigmoid", "ur", "chrono"]
UNITS: tuple[UnitName, ...] = get_args(UnitName)
GATES: tuple[GateName, ...] = get_args(GateName)
_OPTIONS: dict[GateName, GateOptions] = {
    "none": {"refine": "none"},
    "add": {"refine": "add", "activation": "tanh"},
    "mul": {"refine": "mul", "activation": "tanh"},
    "add-sigmoid": {"refine": "add", "activation": "sigmoid"},
    "mul-sigmoid": {"refine": "mul", "activation": "sigmoid"},
    "ur": {"refine": "ur"},
    "chrono": {"refine": "none"},
}
_MGU_ONLY = ("add-sigmoid", "mul-sigmoid")  # they keep its state bounded, which needs no care in LSTM and GRU


@dataclass(frozen=True)
class Variant:
    """A recurrent unit and its kind of gates.

    Attributes:
        unit: LSTM, GRU or MGU.
        gates: `none` (vanilla); `add` and `mul` (refined gates whose feature is in [−1, 1], as in the paper's figure)
            and, for the MGU, `add-sigmoid` and `mul-sigmoid` (in [0, 1]); and two baselines: `ur` (the uniform refine
            gates with their initialisation) and `chrono` (vanilla with chrono initialisation).
    """

    unit: UnitName
    gates: GateName

    def __str__(self) -> str:
        return f"{self.unit}-{self.gates}"

    @property
    def options(self) -> GateOptions:
        """Keyword arguments of the unit's layer."""
        return _OPTIONS[self.gates]

    def layer(self, input_size: int, hidden_size: int, longest: int) -> nn.Module:
        """A recurrent layer, batch second; `longest` is the longest dependency, for chrono initialisation."""
        module = LAYERS[self.unit](input_size, hidden_size, **self.options)
        return init_chrono_(module, longest) if self.gates == "chrono" else module


def all_variants(units: tuple[UnitName, ...] = UNITS, gates: tuple[GateName, ...] = GATES) -> list[Variant]:
    """Every unit with every kind of gates that is for it."""
    pairs = itertools.product(units, gates)
    return [Variant(unit, kind) for unit, kind in pairs if unit == "MGU" or kind not in _MGU_ONLY]


def equal_size(build: Callable[[int], nn.Module], parameters: int, hidden_size: int) -> int:
    """The hidden size, at most `hidden_size`, whose network has the number of parameters closest to `parameters`.

    At the same hidden size, refined gates have more weights than vanilla gates. With equal numbers of parameters a
    study compares gates and not sizes.
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
    """Number of trainable values; shared parameters count once."""
    return sum(parameter.numel() for parameter in module.parameters())
