"""Statistics of the gates of a module: saturation, the effect of refining, and gradient norms through time.

    with watch_gates(model) as records:
        loss = criterion(model(inputs), targets)
        loss.backward()
    for name, record in records.items():
        print(name, record.summary())

Watched layers run the plain loop, which gives the same values and gradients as the kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from str_app.models.gates.cells import CELLS
from str_app.models.gates.gate import RefinedGate
from str_app.models.gates.layers import LAYERS

EFFECTIVE_RANGE = (-2.0, 3.0)  # of histograms of effective gates, which can be negative or above 1
_WATCHABLE: tuple[type[Any], ...] = (*LAYERS.values(), *CELLS.values())


@dataclass
class Histogram:
    """Counts of values in bins of equal width; values outside the range count in the first and last bin.

    Attributes:
        low, high: the range.
        counts: int64 (bins,).
    """

    low: float
    high: float
    counts: Tensor

    def add(self, values: Tensor) -> None:
        """Count values of any shape."""
        bins = len(self.counts)
        index = ((values.detach().float() - self.low) * (bins / (self.high - self.low))).long().clamp_(0, bins - 1)
        self.counts += torch.bincount(index.flatten(), minlength=bins).cpu()

    def share(self, low: float, high: float) -> float:
        """Fraction of values between `low` and `high`, which must be edges of bins."""
        width = (self.high - self.low) / len(self.counts)
        first, last = round((low - self.low) / width), round((high - self.low) / width)
        return float(self.counts[first:last].sum() / self.counts.sum().clamp(min=1))

    def edges(self) -> list[float]:
        """Edges of the bins, one more than bins."""
        step = (self.high - self.low) / len(self.counts)
        return [self.low + k * step for k in range(len(self.counts) + 1)]


@dataclass
class GateRecord:
    """Values of one gate.

    Attributes:
        vanilla: of g = σ(·), in [0, 1]; of f for uniform-refine gates.
        effective: of the gate as used: g ⋄ x if it is refined, else g; the effective gate of `refine="ur"`.
        negative, above_one: numbers of effective values < 0 and > 1.
    """

    vanilla: Histogram = field(default_factory=lambda: Histogram(0.0, 1.0, torch.zeros(100, dtype=torch.int64)))
    effective: Histogram = field(
        default_factory=lambda: Histogram(*EFFECTIVE_RANGE, torch.zeros(250, dtype=torch.int64))
    )
    negative: int = 0
    above_one: int = 0

    def add(self, vanilla: Tensor, effective: Tensor) -> None:
        """Count one step's values."""
        self.vanilla.add(vanilla)
        self.effective.add(effective)
        self.negative += int((effective < 0).sum())
        self.above_one += int((effective > 1).sum())

    def summary(self) -> dict[str, float]:
        """Fractions of values: vanilla gate closed (< 0.1), open (> 0.9) and saturated (either); effective gate
        negative and above 1."""
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
    """Statistics of one cell, or of one layer and direction.

    Attributes:
        gates: name of the gate → its values.
        gradient_norms: step, in the order of the recurrence → norms of ∂loss/∂h_t, one for each backward pass: the mean
            over the batch of norms over the features.
    """

    gates: dict[str, GateRecord] = field(default_factory=dict)
    gradient_norms: dict[int, list[float]] = field(default_factory=dict)

    def summary(self) -> dict[str, dict[str, float]]:
        """Name of the gate → its fractions, see `GateRecord.summary`."""
        return {name: record.summary() for name, record in self.gates.items()}

    def gradient_curve(self) -> list[tuple[int, float]]:
        """(step, mean norm of ∂loss/∂h_t), in the order of steps."""
        return [(step, math.fsum(norms) / len(norms)) for step, norms in sorted(self.gradient_norms.items())]


@dataclass(frozen=True)
class _RecordingGate(RefinedGate):
    """Another gate, whose values it records."""

    original: RefinedGate = field(default_factory=RefinedGate)
    records: dict[str, Record] = field(default_factory=dict)
    module: str = ""  # its name
    record: Record = field(default_factory=Record)
    position: list[Any] = field(default_factory=lambda: [None, -1])  # last state, and its step
    is_layer: bool = False

    def recorded_as(self, name: str) -> RefinedGate:
        is_layer = name != "cell"
        parts = [part for part in (self.module, name if is_layer else "") if part]
        record = self.records.setdefault(".".join(parts) or "cell", Record())
        # A cell is called for each step: its position in the sequence is kept between calls.
        position = [None, -1] if is_layer else self.position
        return replace(self, record=record, position=position, is_layer=is_layer)

    def map_feature(self, x: Tensor, weight: Tensor | None) -> Tensor | None:
        return self.original.map_feature(x, weight)

    def join(self, name: str, gate: Tensor, feature: Tensor | None) -> Tensor:
        effective = self.original.join(name, gate, feature)
        self._record(name, gate, effective)
        return effective

    def uniform_refine(self, name: str, forget: Tensor, refine: Tensor) -> Tensor:
        effective = self.original.uniform_refine(name, forget, refine)
        self._record(name, forget, effective)
        return effective

    def _record(self, name: str, vanilla: Tensor, effective: Tensor) -> None:
        self.record.gates.setdefault(name, GateRecord()).add(vanilla, effective)

    def record_state(self, before: Tensor, after: Tensor) -> None:
        last_state, step = self.position
        step = step + 1 if self.is_layer or _comes_from(before, last_state) else 0
        self.position[:] = [after, step]
        if after.requires_grad:
            norms = self.record.gradient_norms.setdefault(step, [])
            after.register_hook(lambda gradient: norms.append(float(gradient.detach().float().norm(dim=-1).mean())))


def _comes_from(state: Tensor, last: Tensor | None) -> bool:
    """Whether a state is the last one, perhaps after other operations such as a dropout."""
    if state is last:
        return True
    if last is None or last.grad_fn is None:
        return False
    pending, seen = [state.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is last.grad_fn:
            return True
        if node is not None and node not in seen:
            seen.add(node)
            pending += [before for before, _ in node.next_functions]
    return False


@contextmanager
def watch_gates(module: nn.Module) -> Iterator[dict[str, Record]]:
    """Record gates and gradients of every refined-gate cell and layer in `module`, also of those with `refine="none"`.

    Yields:
        Name → record, filled while the module runs. Names are those of `module.named_modules()`: `"decoder.cell"` for a
        cell; `"rnn.l0"`, `"rnn.l0_reverse"` … for each layer and direction of a layer module.

    Raises:
        ValueError: `module` contains no such cell or layer. To watch an `nn.LSTM` or `nn.GRU`, load its weights into a
            `RefinedLSTM` or `RefinedGRU` with `refine="none"`. Or it contains one with `proj_size`, which the plain
            loop has not.
    """
    watched = [(name, part) for name, part in module.named_modules() if isinstance(part, _WATCHABLE)]
    if not watched:
        raise ValueError(
            f"no refined-gate cell or layer in {type(module).__name__}: load an nn.LSTM's or nn.GRU's weights into "
            "RefinedLSTM or RefinedGRU with refine='none' to watch them"
        )
    for name, part in watched:
        if getattr(part, "proj_size", 0):
            raise ValueError(f"{name or type(part).__name__}: layers with proj_size cannot be watched")
    records: dict[str, Record] = {}
    gates = {name: part.gate for name, part in watched}
    try:
        for name, part in watched:
            choices = {f.name: getattr(part.gate, f.name) for f in fields(RefinedGate)}
            part.gate = _RecordingGate(**choices, original=part.gate, records=records, module=name)
        yield records
    finally:
        for name, part in watched:
            part.gate = gates[name]
