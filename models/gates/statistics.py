"""Looking at the gates of a trained module: how saturated they are, how far refining moves them, how gradients travel.

    with watch_gates(model) as watched:
        loss = criterion(model(inputs), targets)
        loss.backward()
    for place, record in watched.items():
        print(place, record.summary())

While they are watched, layers take the plain loop, whose values and gradients are those of the faster paths.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from str_app.models.gates.cells import RefinedGRUCell, RefinedLSTMCell, RefinedMGUCell
from str_app.models.gates.gate import RefinedGate
from str_app.models.gates.layers import RefinedGRU, RefinedLSTM, RefinedMGU

EFFECTIVE = (-2.0, 3.0)  # range of the histograms of gates that act, which can be negative and above 1
_WATCHED = (RefinedLSTM, RefinedGRU, RefinedMGU, RefinedLSTMCell, RefinedGRUCell, RefinedMGUCell)


@dataclass
class Histogram:
    """Counts of values in equal bins; what lies outside falls into the first and last bin.

    Attributes:
        low, high: of the bins together.
        counts: of each bin, int64 (bins,).
    """

    low: float
    high: float
    counts: Tensor

    def add(self, values: Tensor) -> None:
        """Count values of any shape."""
        bins = len(self.counts)
        place = ((values.detach().float() - self.low) * (bins / (self.high - self.low))).long().clamp_(0, bins - 1)
        self.counts += torch.bincount(place.flatten(), minlength=bins).cpu()

    def share(self, low: float, high: float) -> float:
        """Share of values from `low` to `high`, both edges of bins."""
        width = (self.high - self.low) / len(self.counts)
        first, last = round((low - self.low) / width), round((high - self.low) / width)
        return float(self.counts[first:last].sum() / self.counts.sum().clamp(min=1))

    def edges(self) -> list[float]:
        """The bins' edges, one more than there are bins."""
        step = (self.high - self.low) / len(self.counts)
        return [self.low + k * step for k in range(len(self.counts) + 1)]


def _zero_to_one() -> Histogram:
    return Histogram(0.0, 1.0, torch.zeros(100, dtype=torch.int64))


def _signed() -> Histogram:
    return Histogram(*EFFECTIVE, torch.zeros(250, dtype=torch.int64))


@dataclass
class GateRecord:
    """What passed one gate.

    Attributes:
        vanilla: of g = σ(·), in [0, 1]. Of uniform-refine gates: f.
        effective: of the gate that acts: g ⋄ x where it is refined, g where it is not, the effective gate of "ur".
        negative, above_one: how many values of the latter are < 0 and > 1.
    """

    vanilla: Histogram = field(default_factory=_zero_to_one)
    effective: Histogram = field(default_factory=_signed)
    negative: int = 0
    above_one: int = 0

    def add(self, vanilla: Tensor, effective: Tensor) -> None:
        """Count one step's values."""
        self.vanilla.add(vanilla)
        self.effective.add(effective)
        self.negative += int((effective < 0).sum())
        self.above_one += int((effective > 1).sum())

    def summary(self) -> dict[str, float]:
        """Shares in [0, 1]: vanilla gate closed (< 0.1), open (> 0.9) and saturated (either); effective gate negative
        (< 0) and above 1."""
        closed, opened = self.vanilla.share(0, 0.1), self.vanilla.share(0.9, 1)
        total = max(int(self.effective.counts.sum()), 1)
        return {
            "closed": closed,
            "open": opened,
            "saturated": closed + opened,
            "negative": self.negative / total,
            "above_one": self.above_one / total,
        }


@dataclass
class Record:
    """One cell, or one layer and direction.

    Attributes:
        gates: name of the gate → what passed it.
        gradient_norms: for each step, counted in the order of the recurrence, the norms of ∂loss/∂h_t, one for each
            backward pass through it: means over the batch of norms over the features, the loss as it was summed.
    """

    gates: dict[str, GateRecord] = field(default_factory=dict)
    gradient_norms: dict[int, list[float]] = field(default_factory=dict)

    def summary(self) -> dict[str, dict[str, float]]:
        """Gate → its shares, see `GateRecord.summary`."""
        return {name: record.summary() for name, record in self.gates.items()}

    def gradient_curve(self) -> list[tuple[int, float]]:
        """(step, mean norm of the gradient that reaches h at that step), by step."""
        return [(step, math.fsum(norms) / len(norms)) for step, norms in sorted(self.gradient_norms.items())]


@dataclass(frozen=True)
class _RecordingGate(RefinedGate):
    """The same gate, noting what passes. The equations call it as they call any gate."""

    watched: ClassVar[bool] = True
    records: dict[str, Record] = field(default_factory=dict)
    record: Record = field(default_factory=Record)
    sequence: list[Any] = field(default_factory=lambda: [None, -1])  # the last state seen, and its step
    one_sequence: bool = False

    def at(self, place: str) -> RefinedGate:
        if place not in self.records:
            self.records[place] = Record()
        same = {f.name: getattr(self, f.name) for f in fields(RefinedGate)}
        if place == "cell":  # asked for at every step, so that steps are counted across calls
            return _RecordingGate(**same, record=self.records[place], sequence=self.sequence)
        return _RecordingGate(**same, record=self.records[place], one_sequence=True)

    def join(self, name: str, gate: Tensor, feature: Tensor | None) -> Tensor:
        effective = super().join(name, gate, feature)
        self._note(name, gate, effective)
        return effective

    def uniform_refine(self, name: str, forget: Tensor, refine: Tensor) -> Tensor:
        effective = super().uniform_refine(name, forget, refine)
        self._note(name, forget, effective)
        return effective

    def _note(self, name: str, vanilla: Tensor, effective: Tensor) -> None:
        self.record.gates.setdefault(name, GateRecord()).add(vanilla, effective)

    def note_state(self, before: Tensor, after: Tensor) -> None:
        last, step = self.sequence
        step = step + 1 if self.one_sequence or before is last else 0
        self.sequence[:] = [after, step]
        if after.requires_grad:
            norms = self.record.gradient_norms.setdefault(step, [])
            after.register_hook(lambda gradient: norms.append(float(gradient.detach().float().norm(dim=-1).mean())))


@contextmanager
def watch_gates(module: nn.Module) -> Iterator[dict[str, Record]]:
    """Record gates and gradients of every refined-gate cell and layer in `module`, vanilla ones included.

    Yields:
        Place → record, filled while the module runs: `"decoder.cell"` for a cell, `"rnn.l0"`, `"rnn.l0_reverse"` … for
        each layer and direction of a layer module; named as in `module.named_modules()`.

    Raises:
        ValueError: nothing in it can be watched. Load the weights of an `nn.LSTM` or `nn.GRU` into `RefinedLSTM` or
            `RefinedGRU` with `refine="none"` to watch them.
    """
    found = [(name, part) for name, part in module.named_modules() if isinstance(part, _WATCHED)]
    if not found:
        raise ValueError(
            f"no refined-gate cell or layer in {type(module).__name__}: load an nn.LSTM's or nn.GRU's weights into "
            "RefinedLSTM or RefinedGRU with refine='none' to watch them"
        )
    records: dict[str, Record] = {}
    gates = {name: part.gate for name, part in found}
    try:
        for name, part in found:
            plain = part.gate
            choices = {f.name: getattr(plain, f.name) for f in fields(RefinedGate)}
            part.gate = _RecordingGate(**choices, records=_Places(records, name))
        yield records
    finally:
        for name, part in found:
            part.gate = gates[name]


class _Places(dict[str, Record]):
    """Records of one module, put under its name into the records of all."""

    def __init__(self, records: dict[str, Record], name: str) -> None:
        self._records, self._name = records, name

    def __setitem__(self, place: str, record: Record) -> None:
        super().__setitem__(place, record)
        parts = [part for part in (self._name, "" if place == "cell" else place) if part]
        self._records[".".join(parts) or "cell"] = record
