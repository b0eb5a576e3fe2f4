"""The verb `bench`: measurements of a model beyond its accuracy on data sets, and of the gate layers' speed."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer


def limits(
    out: Annotated[Path, typer.Option(help="Folder for limits.md, limits.json and the plots.")],
    model: Annotated[str, typer.Option(help="A name that `str-app models` lists, or a checkpoint file.")] = "small",
    count: Annotated[int, typer.Option(min=1, help="Probes at each value.")] = 200,
    only: Annotated[
        list[str] | None, typer.Option(help="length, rotation, height or contrast; may be repeated. Default: all.")
    ] = None,
    fonts: Annotated[Path | None, typer.Option(help="Folder of .ttf and .otf files; default: the system's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the probes.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Most crops in one pass.")] = 32,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; torch's default otherwise.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Measure accuracy by word length, rotation, letter height and contrast, on plain rendered probes.

    Example: str-app bench limits --model small --out runs/limits --count 200
    """
    from rich.console import Console
    from rich.progress import Progress

    from str_app.bench.limits import LIMITS, measure, write
    from str_app.datasets.renderer import find_fonts, frequent_words
    from str_app.reader import Reader

    names = [limit.name for limit in LIMITS]
    unknown = sorted(set(only or []) - set(names))
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(names)}", param_hint="--only")
    chosen = [limit for limit in LIMITS if not only or limit.name in only]
    reader = Reader.load(model, device=device, threads=threads, batch_size=batch_size)
    font_set, words = find_fonts(fonts), frequent_words()
    out.mkdir(parents=True, exist_ok=True)
    measured = []
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        for limit in chosen:
            task = bar.add_task(limit.name, total=count * len(limit.values) * len(limit.curves))
            advance = functools.partial(bar.advance, task)
            measured.append((limit, measure(reader, font_set, words, limit, count, seed, advance)))
            if not console.is_terminal:
                typer.echo(f"{limit.name}: done", err=True)
    for file in write(out, reader.name, reader.engine.max_length, measured):
        typer.echo(file)


def gates(
    out: Annotated[Path, typer.Option(help="Folder for gates.md, gates.json and the plots.")],
    unit: Annotated[list[str] | None, typer.Option(help="LSTM, GRU or MGU; may be repeated. Default: all.")] = None,
    refine: Annotated[str, typer.Option(help="add, mul or ur.")] = "mul",
    quick: Annotated[bool, typer.Option("--quick", help="Five shapes: about a minute.")] = False,
    compiled: Annotated[bool, typer.Option("--compiled", help="Also torch.compile of the loop: minutes more.")] = False,
    turns: Annotated[int, typer.Option(min=1, help="Most turns of the contenders at each shape.")] = 15,
    seconds: Annotated[float, typer.Option(min=0, help="Time after which no turn beyond the third is begun.")] = 3.0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    cpu_time: Annotated[
        bool, typer.Option("--cpu-time", help="Count the process's own time: for a machine that does other work.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")] = False,
) -> None:
    """Time the refined-gate layers against torch's own, forward and backward, and against a loop of cells.

    All contenders take turns in one run: compare the ratios, never times of two runs.

    Example: str-app bench gates --quick --out runs/bench-gates
    """
    import platform

    import torch

    from str_app.bench.gates import markdown, measure, overhead, shapes, write

    units = unit or ["LSTM", "GRU", "MGU"]
    for name, value, known in (("--unit", units, ("LSTM", "GRU", "MGU")), ("--refine", [refine], ("add", "mul", "ur"))):
        wrong = [given for given in value if given not in known]
        if wrong:
            raise typer.BadParameter(f"{wrong[0]!r} is none of {', '.join(known)}", param_hint=name)
    if device != "cpu" and not torch.cuda.is_available():
        raise typer.BadParameter("there is no CUDA device here: leave it cpu", param_hint="--device")
    if cpu_time and (device != "cpu" or threads != 1):
        raise typer.BadParameter("means something for --device cpu --threads 1 only", param_hint="--cpu-time")
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    chosen = shapes(quick)
    timings = []
    for timing in measure(units, chosen, refine, device, turns, seconds, compiled, cpu_time):  # type: ignore[arg-type]
        timings.append(timing)
        place = f"{timing.unit} B {timing.batch} T {timing.steps} H {timing.hidden} {timing.what}"
        typer.echo(f"{place}: {timing.milliseconds['refined']:.2f} ms", err=True)
    costs = [overhead(name, refine) for name in units]  # type: ignore[arg-type]
    about = {
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
        "machine": platform.machine(),
        "threads": threads,
        "clock": "process" if cpu_time else "wall",
        "torch": torch.__version__,
        "refine": refine,
    }
    files = write(out, about, timings, costs)
    typer.echo(files[1].read_text(encoding="utf-8") if as_json else markdown(timings, costs))
    for file in files:
        typer.echo(file, err=True)
