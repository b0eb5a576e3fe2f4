"""How fast the refined-gate layers are: against torch's own layers, and against a loop of single cells.

Only ratios within one run mean something, above all on a machine that does other work: the contenders take turns, and
a ratio is the median of the ratios of the turns.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from str_app.evaluation.plots import Axis, Series, plot
from str_app.models.gates.cells import RefinedGRUCell, RefinedLSTMCell, RefinedMGUCell
from str_app.models.gates.gate import Refine
from str_app.models.gates.layers import LAYERS
from str_app.models.kernels.fused import faster_steps
from str_app.models.kernels.native.library import torch_operations_only

BATCHES, STEPS, HIDDEN = (1, 32, 128), (26, 100, 400), (128, 256, 512)
QUICK = ((1, 26, 128), (32, 26, 128), (1, 100, 256), (32, 100, 256), (50, 50, 64))
PASSES = ("forward", "forward+backward")

_CELLS: dict[str, Any] = {"LSTM": RefinedLSTMCell, "GRU": RefinedGRUCell, "MGU": RefinedMGUCell}
_TORCH: dict[str, Any] = {"LSTM": nn.LSTM, "GRU": nn.GRU}


@dataclass(frozen=True)
class Timing:
    """One unit, shape and pass.

    Attributes:
        unit: LSTM, GRU or MGU.
        batch, steps, hidden: B, T, and H, which is the input size too.
        what: `"forward"` (without gradients) or `"forward+backward"`.
        turns: measured turns.
        milliseconds: contender → median time. Contenders: `torch` (nn.LSTM, nn.GRU; there is no MGU), `refined` (our
            layer), `pure` (the same without the native loops or the GPU's kernels, where it takes those), `cells` (a
            loop of our cells), `compiled` (torch.compile of that loop).
        ratios: contender → (lower quartile, median, upper quartile) of the refined layer's time to the contender's.
    """

    unit: str
    batch: int
    steps: int
    hidden: int
    what: str
    turns: int
    milliseconds: dict[str, float]
    ratios: dict[str, tuple[float, float, float]]


@dataclass(frozen=True)
class Overhead:
    """What a refined layer costs beside time: parameters, and bytes kept between forward and backward pass."""

    unit: str
    shape: tuple[int, int, int]
    parameters: dict[str, int]
    kept_bytes: dict[str, int]


def shapes(quick: bool) -> list[tuple[int, int, int]]:
    """(B, T, H) of a run; the quick ones take seconds."""
    return list(QUICK) if quick else list(itertools.product(BATCHES, STEPS, HIDDEN))


def measure(
    units: Sequence[str],
    shapes: Sequence[tuple[int, int, int]],
    refine: Refine,
    device: str,
    turns: int,
    seconds: float,
    compiled: bool,
    cpu_time: bool = False,
) -> Iterator[Timing]:
    """Time every unit, shape and pass.

    Args:
        units: of LSTM, GRU, MGU.
        shapes: (B, T, H) each.
        refine: of the refined layers, else at their defaults.
        device: cpu or cuda.
        turns: most turns of a shape and pass.
        seconds: no further turn is begun after this time, but three are always taken.
        compiled: also torch.compile of the loop of cells, which compiles for minutes at many steps.
        cpu_time: the process's own time in place of the clock's, for one thread on a machine that does other work.
    """
    clock = time.process_time if cpu_time else time.perf_counter
    for unit, (batch, steps, hidden) in itertools.product(units, shapes):
        torch.manual_seed(0)
        x = torch.randn(steps, batch, hidden, device=device, requires_grad=True)  # as inside a network
        layers = contenders(unit, hidden, refine, device, compiled)
        for what in PASSES:
            runs = {name: _runner(layer, x, what) for name, layer in layers.items()}
            if refine != "ur" and faster_steps(batch * steps, x, *layers["refined"].parameters()):
                runs["pure"] = torch_operations_only()(_runner(layers["refined"], x, what))
            times = _take_turns(runs, turns, seconds, device, clock)
            ratios = {
                name: _quartiles([ours / theirs for ours, theirs in zip(times["refined"], times[name], strict=True)])
                for name in times
                if name != "refined"
            }
            medians = {name: statistics.median(taken) * 1000 for name, taken in times.items()}
            yield Timing(unit, batch, steps, hidden, what, len(times["refined"]), medians, ratios)
        if compiled:
            torch.compiler.reset()


def contenders(unit: str, hidden: int, refine: Refine, device: str, compiled: bool) -> dict[str, Any]:
    """What is compared: modules from (T, B, H) to outputs (T, B, H) and a state."""
    found: dict[str, Any] = {}
    if unit in _TORCH:
        found["torch"] = _TORCH[unit](hidden, hidden, device=device)
    found["refined"] = LAYERS[unit](hidden, hidden, refine=refine, device=device)
    loop = LoopOfCells(_CELLS[unit](hidden, hidden, refine=refine, device=device))
    found["cells"] = loop
    if compiled:
        found["compiled"] = torch.compile(loop)
    return found


class LoopOfCells(nn.Module):
    """The plain way to a recurrent layer: one call of the cell a step."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        """(T, B, I) → outputs (T, B, H) and the last state."""
        state, outputs = None, []
        for x_t in x:
            state = self.cell(x_t, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(outputs), state


def overhead(unit: str, refine: Refine, shape: tuple[int, int, int] = (32, 100, 256)) -> Overhead:
    """Parameters and bytes kept for the backward pass, of the refined layer and of those it is compared with."""
    batch, steps, hidden = shape
    layers = contenders(unit, hidden, refine, "cpu", compiled=False)
    parameters = {name: sum(p.numel() for p in layer.parameters()) for name, layer in layers.items()}
    return Overhead(
        unit,
        shape,
        parameters,
        {name: _kept_bytes(layer, torch.randn(steps, batch, hidden)) for name, layer in layers.items()},
    )


def _kept_bytes(layer: Any, x: Tensor) -> int:
    owned = {p.untyped_storage().data_ptr() for p in [*layer.parameters(), x]}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage() if tensor.layout == torch.strided else None
        if storage is not None and storage.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = layer(x)[0]  # alive until the sum is taken, so that no address is used twice
    del output
    return sum(kept.values())


def _runner(layer: Any, x: Tensor, what: str) -> Callable[[], None]:
    def forward() -> None:
        with torch.no_grad():
            layer(x)

    def both() -> None:
        layer(x)[0].sum().backward()

    return forward if what == "forward" else both


def _take_turns(
    runs: dict[str, Callable[[], None]], turns: int, seconds: float, device: str, clock: Callable[[], float]
) -> dict[str, list[float]]:
    def timed(run: Callable[[], None]) -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        started = clock()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        return clock() - started

    for run in runs.values():  # first calls allocate, pack weights and compile
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    until = time.perf_counter() + seconds
    for turn in range(max(turns, 1)):
        if turn >= 3 and time.perf_counter() > until:
            break
        for name, run in runs.items():
            times[name].append(timed(run))
    return times


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def markdown(timings: Sequence[Timing], overheads: Sequence[Overhead]) -> str:
    """The refined layer's path; times with ratios (quartiles in brackets); what the layers cost beside time."""
    names = [name for name in ("torch", "pure", "cells", "compiled") if any(name in one.ratios for one in timings)]
    lines = [
        f"The refined layer ran by {'the native loops or the kernels' if 'pure' in names else 'torch operations'}.",
        "",
        f"| unit | B | T | H | pass | refined, ms | {' | '.join(f'refined / {name}' for name in names)} |",
        "|---" * (6 + len(names)) + "|",
    ]
    for one in timings:
        cells = []
        for name in names:
            low, middle, high = one.ratios.get(name, (0.0, 0.0, 0.0))
            cells.append(f"{middle:.2f} [{low:.2f}, {high:.2f}]" if name in one.ratios else "–")
        lines.append(
            f"| {one.unit} | {one.batch} | {one.steps} | {one.hidden} | {one.what} | "
            f"{one.milliseconds['refined']:.2f} | {' | '.join(cells)} |"
        )
    lines += ["", "| unit | B, T, H | | parameters | kept for the backward pass |", "|---|---|---|---|---|"]
    for cost in overheads:
        for name, count in cost.parameters.items():
            lines.append(
                f"| {cost.unit} | {', '.join(map(str, cost.shape))} | {name} | {count} | "
                f"{cost.kept_bytes[name] / 1e6:.1f} MB |"
            )
    return "\n".join(lines)


def write(out: Path, about: dict[str, Any], timings: Sequence[Timing], overheads: Sequence[Overhead]) -> list[Path]:
    """`gates.md`, `gates.json` and a plot for each unit; the files written."""
    files = [out / "gates.md", out / "gates.json"]
    heading = ", ".join(f"{key} {value}" for key, value in about.items())
    files[0].write_text(f"{heading}\n\n{markdown(timings, overheads)}\n", encoding="utf-8")
    content = {
        **about,
        "timings": [asdict(one) for one in timings],
        "overheads": [asdict(one) for one in overheads],
    }
    files[1].write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for unit in dict.fromkeys(one.unit for one in timings):
        file = out / f"gates-{unit.lower()}.svg"
        file.write_text(_plot(unit, [one for one in timings if one.unit == unit]), encoding="utf-8")
        files.append(file)
    return files


def _plot(unit: str, timings: Sequence[Timing]) -> str:
    """Forward and backward time of the refined layer to torch's (MGU: to the loop of cells), by batch size."""
    against = "torch" if unit in _TORCH else "cells"
    shown = [one for one in timings if one.what == "forward+backward"]
    batches = sorted({one.batch for one in shown})
    series = []
    for steps, hidden in sorted({(one.steps, one.hidden) for one in shown if one.hidden in (128, 256)}):
        chosen = [one for one in shown if (one.steps, one.hidden) == (steps, hidden)]
        series.append(
            Series(
                f"T = {steps}, H = {hidden}",
                [one.batch for one in chosen],
                [one.ratios[against][1] for one in chosen],
                marks="both",
            )
        )
    series.append(Series("", batches, [1.0] * len(batches), marks="dashed"))
    top = max(value for one in series for value in one.ys)
    return plot(
        f"Refined {unit}: forward and backward",
        Axis("batch size", log=True, ticks=batches, bounds=(min(batches), max(2, max(batches)))),
        Axis(f"time / {f'nn.{unit}' if unit in _TORCH else 'loop of cells'}", bounds=(0, 1.1 * top)),
        series,
    )
