"""Speed of the refined-gate layers, compared with torch's own layers and with a loop of single cells.

Only ratios within one run are meaningful, above all on a machine that is not idle: the contenders take turns, and each
ratio is the median over the turns.
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
from str_app.models.gates.cells import CELLS
from str_app.models.gates.gate import Refine
from str_app.models.gates.layers import LAYERS
from str_app.models.kernels.dispatch import torch_operations_only
from str_app.models.kernels.recurrence import find_steps

BATCHES, STEPS, HIDDEN = (1, 32, 128), (26, 100, 400), (128, 256, 512)
QUICK = ((1, 26, 128), (32, 26, 128), (1, 100, 256), (32, 100, 256), (50, 50, 64))
PASSES = ("forward", "forward+backward")

_TORCH: dict[str, Any] = {"LSTM": nn.LSTM, "GRU": nn.GRU}
TIMED_UNITS = tuple(CELLS)


@dataclass(frozen=True)
class Timing:
    """Times of one unit, shape and pass.

    Attributes:
        unit: LSTM, GRU or MGU.
        batch, steps, hidden: B, T and H; the input size is H, too.
        what: `"forward"` (without gradients) or `"forward+backward"`.
        turns: number of measured turns.
        milliseconds: contender → median time. Contenders: `torch` (nn.LSTM, nn.GRU; torch has no MGU), `refined` (our
            layer), `loop` (the same without kernels, where `refined` uses them),
            `cells` (a loop of our cells), `compiled` (torch.compile of that loop).
        ratios: contender → (lower quartile, median, upper quartile) of the refined layer's time relative to
            the contender's.
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
    """Costs other than time: parameters, and bytes saved by the forward pass for the backward pass."""

    unit: str
    shape: tuple[int, int, int]
    parameters: dict[str, int]
    kept_bytes: dict[str, int]


def shapes(quick: bool) -> list[tuple[int, int, int]]:
    """The shapes (B, T, H) of a run."""
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
        units: any of LSTM, GRU, MGU.
        shapes: (B, T, H) each.
        refine: kind of refined gates; the layers' other options keep their defaults.
        device: cpu, cuda, cuda:1, …
        turns: maximum number of turns per shape and pass.
        seconds: no further turn starts after this time, but there are always three.
        compiled: also time torch.compile of the loop of cells, which takes minutes to compile for many steps.
        cpu_time: measure CPU time instead of wall time; for one thread on a machine that is not idle.
    """
    clock = time.process_time if cpu_time else time.perf_counter
    for unit, (batch, steps, hidden) in itertools.product(units, shapes):
        torch.manual_seed(0)
        x = torch.randn(steps, batch, hidden, device=device, requires_grad=True)  # as inside a network
        layers = contenders(unit, hidden, refine, device, compiled)
        for what in PASSES:
            runs = {name: _runner(layer, x, what) for name, layer in layers.items()}
            if find_steps(batch * steps, x, *layers["refined"].parameters(), uniform=refine == "ur"):
                runs["loop"] = torch_operations_only()(_runner(layers["refined"], x, what))
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
    """The modules to compare, from (T, B, H) to outputs (T, B, H) and a state."""
    modules: dict[str, Any] = {}
    if unit in _TORCH:
        modules["torch"] = _TORCH[unit](hidden, hidden, device=device)
    modules["refined"] = LAYERS[unit](hidden, hidden, refine=refine, device=device)
    loop = LoopOfCells(CELLS[unit](hidden, hidden, refine=refine, device=device))
    modules["cells"] = loop
    if compiled:
        modules["compiled"] = torch.compile(loop)
    return modules


class LoopOfCells(nn.Module):
    """A recurrent layer in its plainest form: one call of the cell per step."""

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
    """Parameters and bytes saved for the backward pass, of the refined layer and the other contenders."""
    batch, steps, hidden = shape
    layers = contenders(unit, hidden, refine, "cpu", compiled=False)
    parameters = {name: sum(p.numel() for p in layer.parameters()) for name, layer in layers.items()}
    return Overhead(
        unit,
        shape,
        parameters,
        {name: _saved_bytes(layer, torch.randn(steps, batch, hidden)) for name, layer in layers.items()},
    )


def _saved_bytes(layer: Any, x: Tensor) -> int:
    owned = {p.untyped_storage().data_ptr() for p in [*layer.parameters(), x]}
    saved: dict[int, int] = {}

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage() if tensor.layout == torch.strided else None
        if storage is not None and storage.data_ptr() not in owned:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        output = layer(x)[0]  # kept alive until the sum, so that no address is reused
    del output
    return sum(saved.values())


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
    on_gpu = torch.device(device).type == "cuda"

    def timed(run: Callable[[], None]) -> float:
        if on_gpu:
            torch.cuda.synchronize(device)
        started = clock()
        run()
        if on_gpu:
            torch.cuda.synchronize(device)
        return clock() - started

    for run in runs.values():  # warm-up: first calls allocate, pack weights and compile
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
    """Markdown: how the refined layer ran, its times with ratios (quartiles in brackets), and the other costs."""
    names = [
        name for name in ("torch", "loop", "cells", "compiled") if any(name in timing.ratios for timing in timings)
    ]
    lines = [
        f"The refined layer ran in {'kernels' if 'loop' in names else 'the plain loop'}.",
        "",
        f"| unit | B | T | H | pass | refined, ms | {' | '.join(f'refined / {name}' for name in names)} |",
        "|---" * (6 + len(names)) + "|",
    ]
    for timing in timings:
        cells = []
        for name in names:
            low, middle, high = timing.ratios.get(name, (0.0, 0.0, 0.0))
            cells.append(f"{middle:.2f} [{low:.2f}, {high:.2f}]" if name in timing.ratios else "–")
        lines.append(
            f"| {timing.unit} | {timing.batch} | {timing.steps} | {timing.hidden} | {timing.what} | "
            f"{timing.milliseconds['refined']:.2f} | {' | '.join(cells)} |"
        )
    lines += ["", "| unit | B, T, H | | parameters | saved for the backward pass |", "|---|---|---|---|---|"]
    for cost in overheads:
        for name, count in cost.parameters.items():
            lines.append(
                f"| {cost.unit} | {', '.join(map(str, cost.shape))} | {name} | {count} | "
                f"{cost.kept_bytes[name] / 1e6:.1f} MB |"
            )
    return "\n".join(lines)


def write(out: Path, about: dict[str, Any], timings: Sequence[Timing], overheads: Sequence[Overhead]) -> list[Path]:
    """Write `gates.md`, `gates.json` and a plot for each unit, and return their paths."""
    files = [out / "gates.md", out / "gates.json"]
    heading = ", ".join(f"{key} {value}" for key, value in about.items())
    files[0].write_text(f"{heading}\n\n{markdown(timings, overheads)}\n", encoding="utf-8")
    content = {
        **about,
        "timings": [asdict(timing) for timing in timings],
        "overheads": [asdict(overhead) for overhead in overheads],
    }
    files[1].write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for unit in dict.fromkeys(timing.unit for timing in timings):
        file = out / f"gates-{unit.lower()}.svg"
        file.write_text(_plot(unit, [timing for timing in timings if timing.unit == unit]), encoding="utf-8")
        files.append(file)
    return files


def _plot(unit: str, timings: Sequence[Timing]) -> str:
    """Time of forward and backward pass relative to torch's layer (MGU: to the loop of cells), by batch size."""
    against = "torch" if unit in _TORCH else "cells"
    shown = [timing for timing in timings if timing.what == "forward+backward"]
    batches = sorted({timing.batch for timing in shown})
    series = []
    for steps, hidden in sorted({(timing.steps, timing.hidden) for timing in shown if timing.hidden in (128, 256)}):
        chosen = [timing for timing in shown if (timing.steps, timing.hidden) == (steps, hidden)]
        series.append(
            Series(
                f"T = {steps}, H = {hidden}",
                [timing.batch for timing in chosen],
                [timing.ratios[against][1] for timing in chosen],
                marks="both",
            )
        )
    series.append(Series("", batches, [1.0] * len(batches), marks="dashed"))
    top = max(value for curve in series for value in curve.ys)
    return plot(
        f"Refined {unit}: forward and backward",
        Axis("batch size", log=True, ticks=batches, bounds=(min(batches), max(2, max(batches)))),
        Axis(f"time / {f'nn.{unit}' if unit in _TORCH else 'loop of cells'}", bounds=(0, 1.1 * top)),
        series,
    )
