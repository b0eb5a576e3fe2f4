"""The verb `synth`: draw word crops for training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from str_app.datasets.renderer import Renderer


def synth(
    out: Annotated[Path | None, typer.Option(help="LMDB to write; must not exist. Without it, only --preview.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of crops.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, fonts and words: same crops.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes; their number does not change the crops.")] = 1,
    fonts: Annotated[Path | None, typer.Option(help="Folder of .ttf and .otf files; default: the system's.")] = None,
    words: Annotated[
        Path | None, typer.Option(help="Word list, `word [count]` a line; default: English and six languages more.")
    ] = None,
    only_words: Annotated[
        bool, typer.Option("--only-words", help="Draw the words of the list as they are, no numbers or addresses.")
    ] = False,
    photographs: Annotated[
        Path | None, typer.Option(help="Folder of JPEG pictures for grounds; default: the system's wallpapers.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="EFFECT=SHARE", help="How often an effect happens (see `Style`); repeatable."),
    ] = None,
    start: Annotated[int, typer.Option(min=0, help="Index of the first crop, to continue a data set.")] = 0,
    preview: Annotated[Path | None, typer.Option(help="Write a sheet of the first crops to this picture.")] = None,
) -> None:
    """Draw word crops with real fonts into an LMDB, with the place of every character.

    Example: str-app synth --out runs/synth.lmdb --count 10000 --workers 2 --preview runs/sheet.png
    """
    from str_app.datasets.renderer import (
        Renderer,
        TextSource,
        find_fonts,
        find_photographs,
        frequent_words,
        make_style,
        read_words,
    )
    from str_app.datasets.renderer import fonts as font_files
    from str_app.datasets.renderer import photographs as photograph_files
    from str_app.datasets.renderer.writing import render_to_lmdb
    from str_app.errors import StrAppError

    if out is None and preview is None:
        raise typer.BadParameter("needs --out LMDB, or --preview PICTURE alone", param_hint="--out")
    if out is not None and out.exists():
        raise StrAppError(f"{out} exists already: give another name or remove it")
    if only_words and words is None:
        raise typer.BadParameter("needs --words FILE", param_hint="--only-words")
    style = make_style(set_ or [])
    font_set = find_fonts(fonts)
    pictures = find_photographs(photographs)
    texts = TextSource(read_words(words) if words else frequent_words(), only_words)
    typer.echo(
        f"{len(font_set)} fonts ({font_files.fingerprint(font_set)}), {len(pictures)} photographs "
        f"({photograph_files.fingerprint(pictures)}), {len(texts.words)} words, seed {seed}"
    )
    renderer = (font_set, texts, seed, style, pictures)
    if preview is not None:
        _write_preview(preview, Renderer(*renderer), range(start, start + min(count, 120)))
    if out is None:
        return
    began = time.monotonic()
    with _progress(count) as progress:
        render_to_lmdb(out, renderer, count, start, workers, progress)
    took = time.monotonic() - began
    typer.echo(f"{out}: {count} crops in {took:.0f} s ({count / took:.0f} a second, {workers} workers)")


def _write_preview(path: Path, renderer: Renderer, indices: range) -> None:
    from str_app.datasets.renderer.sheet import contact_sheet
    from str_app.errors import StrAppError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet([renderer.render(index) for index in indices]).save(path)
    except (OSError, ValueError) as error:
        raise StrAppError(f"{path}: cannot write the preview: {error}") from error


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a plain line every tenth otherwise."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("drawing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("drawing", total=total)
            yield lambda done: bar.update(task, completed=done)
        return
    tenth = 0

    def line(done: int) -> None:
        nonlocal tenth
        if done * 10 // total > tenth:
            tenth = done * 10 // total
            typer.echo(f"{done} of {total} crops")

    yield line
