"""The verb `bench`: measurements of a model beyond its accuracy on data sets."""

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

    from datasets.renderer import find_fonts, frequent_words
    from str_app.limits import LIMITS, measure, write
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
