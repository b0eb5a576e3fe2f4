"""The verb `bench`: a model's limits, and the speed of the engines and of the gate layers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from str_app.cli import options
from str_app.cli.evaluate import check_writable, write_file
from str_app.cli.progress import ProgressBar


def limits(
    out: Annotated[Path, typer.Option(help="Folder for limits.md, limits.json and the plots.")],
    model: options.Model = "small",
    count: Annotated[int, typer.Option(min=1, help="Number of words at each value.")] = 200,
    only: Annotated[
        list[str] | None, options.choices("Property to vary", ("length", "rotation", "height", "contrast"))
    ] = None,
    fonts: options.Fonts = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the words.")] = 0,
    batch_size: options.BatchSize = 32,
    threads: options.Threads = None,
    device: options.Device = "cpu",
) -> None:
    """Measure accuracy by word length, rotation, letter height and contrast, on plain rendered words.

    Example: str-app bench limits --model small --out runs/limits --count 200
    """
    from str_app.bench.limits import SWEEPS, measure, write
    from str_app.datasets.renderer import find_fonts, frequent_words
    from str_app.reader import Reader

    reader = Reader.load(model, device=device, threads=threads, batch_size=batch_size)
    font_set, words = find_fonts(fonts), frequent_words()
    out.mkdir(parents=True, exist_ok=True)
    measured = []
    for sweep in SWEEPS:
        if only and sweep.name not in only:
            continue
        with ProgressBar(sweep.name, count * len(sweep.values) * len(sweep.curves), "probes") as progress:
            measured.append((sweep, measure(reader, font_set, words, sweep, count, seed, progress.advance)))
        typer.echo(f"{sweep.name}: done", err=True)
    for file in write(out, reader.name, reader.engine.max_length, measured):
        typer.echo(file)


def engines(
    data: Annotated[Path, typer.Option(help="LMDB or folder with labelled crops.")],
    model: options.Model = "small",
    count: Annotated[int, typer.Option(min=1, help="Number of crops, evenly spaced.")] = 300,
    turns: Annotated[int, typer.Option(min=1, help="Rounds of all contenders.")] = 5,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the results to this file.")
    ] = None,
) -> None:
    """Time a model with every engine and precision that runs here, in turn, each pinned to one core.

    PP-OCR's recogniser runs beside them where `rapidocr` is installed. Prints crops per second one by one and in
    batches of 32, seconds from start to the first reading, memory, and the percentage of crops that are read right.

    Example: str-app bench engines --data data/IIIT5K_train --count 300
    """
    import json

    from str_app.bench.engines import as_json, as_markdown, contenders, measure

    check_writable(json_file)
    rivals = contenders(model)
    with ProgressBar("measuring", turns * len(rivals), "turns") as progress:
        results = measure(rivals, model, data, count, turns, progress.advance)
    typer.echo(as_markdown(results))
    if json_file is not None:
        write_file(json_file, json.dumps(as_json(results, data.name, count, turns), indent=2) + "\n")


def gates(
    out: Annotated[Path, typer.Option(help="Folder for gates.md, gates.json and the plots.")],
    unit: options.Units = None,
    refine: Annotated[Literal["add", "mul", "ur"], typer.Option(help="Kind of refined gates.")] = "mul",
    quick: Annotated[bool, typer.Option("--quick", help="Only five shapes: about a minute.")] = False,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="Also time torch.compile of the loop; takes minutes longer.")
    ] = False,
    turns: Annotated[int, typer.Option(min=1, help="Maximum number of rounds per shape.")] = 15,
    seconds: Annotated[
        float, typer.Option(min=0, help="Start no further round after this time, but always run three.")
    ] = 3.0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    device: options.Device = "cpu",
    cpu_time: Annotated[
        bool, typer.Option("--cpu-time", help="Measure the process's CPU time, for a machine that is not idle.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Time the refined-gate layers, forward and backward, against torch's own layers and a loop of cells.

    The contenders take turns within one run: compare the ratios, never the times of two runs.

    Example: str-app bench gates --quick --out runs/bench-gates
    """
    import platform

    import torch

    from str_app.bench.gates import TIMED_UNITS, markdown, measure, overhead, shapes, write
    from str_app.engines.load import EngineOptions, torch_device

    EngineOptions(device, threads)  # checks both
    torch_device(device)
    if cpu_time and (device != "cpu" or threads != 1):
        raise typer.BadParameter("needs --device cpu and --threads 1", param_hint="--cpu-time")
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    units = unit or TIMED_UNITS
    timings = []
    for timing in measure(units, shapes(quick), refine, device, turns, seconds, compiled, cpu_time):
        timings.append(timing)
        label = f"{timing.unit} B {timing.batch} T {timing.steps} H {timing.hidden} {timing.what}"
        typer.echo(f"{label}: {timing.milliseconds['refined']:.2f} ms", err=True)
    costs = [overhead(name, refine) for name in units]
    about = {
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
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
