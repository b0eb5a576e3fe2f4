"""The verb `synth`: render word crops, or whole pictures with many words, for training."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from str_app.cli import options, pool
from str_app.cli.printing import note
from str_app.cli.progress import ProgressBar

if TYPE_CHECKING:
    from str_app.datasets.renderer import Renderer, SceneComposer

PREVIEWED_CROPS, PREVIEWED_SCENES = 120, 24


def synth(
    context: typer.Context,
    out: Annotated[
        Path | None,
        typer.Option(help="LMDB to write, or folder with --scenes; must not exist. Optional with --preview."),
    ] = None,
    scenes: Annotated[
        bool,
        typer.Option(
            "--scenes",
            help="Whole pictures with many words instead of crops: images/*.jpg and labels.jsonl with quads.",
        ),
    ] = False,
    count: Annotated[int, typer.Option(min=1, help="Number of crops or scenes.")] = 10_000,
    seed: Annotated[
        int, typer.Option(min=0, help="The same seed, fonts, words, effects and photographs give the same crops.")
    ] = 0,
    workers: pool.Workers = None,
    shard_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Write a folder of LMDBs of this many crops each, which together are one data set. Default: one LMDB; "
            "with --ray 200000.",
        ),
    ] = None,
    ray: pool.Ray = False,
    ray_address: pool.RayAddress = None,
    fonts: options.Fonts = None,
    words: Annotated[
        Path | None, typer.Option(help="Word list, `word [count]` per line. Default: English and six more languages.")
    ] = None,
    only_words: Annotated[
        bool,
        typer.Option("--only-words", help="Render only the words in --words: no numbers, addresses or case changes."),
    ] = False,
    photographs: Annotated[
        Path | None, typer.Option(help="Folder of JPEG images for backgrounds. Default: the system's wallpapers.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="EFFECT=SHARE",
            help="Share of crops with an effect, a field of str_app.datasets.renderer.style.Style; repeatable.",
        ),
    ] = None,
    start: Annotated[int, typer.Option(min=0, help="Index of the first crop, to extend a data set.")] = 0,
    preview: Annotated[
        Path | None, typer.Option(help="Write a contact sheet of the first crops to this image file.")
    ] = None,
) -> None:
    """Render word crops with real fonts into an LMDB, with a box for every character; or whole scenes into a folder.

    Example: str-app synth --out runs/synth.lmdb --count 10000 --workers 2 --preview runs/sheet.png
    """
    from str_app.datasets.renderer import (
        Renderer,
        SceneComposer,
        TextSource,
        find_fonts,
        find_photographs,
        frequent_words,
        make_style,
        read_words,
    )
    from str_app.datasets.renderer import fonts as font_files
    from str_app.datasets.renderer import photographs as photograph_files
    from str_app.datasets.renderer.scene_writing import write_scenes
    from str_app.datasets.renderer.words import MAX_LENGTH
    from str_app.datasets.renderer.writing import render_to_lmdb
    from str_app.errors import StrAppError

    if out is None and preview is None:
        raise typer.BadParameter("give --out PATH, or --preview IMAGE, or both", param_hint="--out")
    if not ray:
        options.refuse(context, ("ray_address",), "needs --ray")
    if ray and shard_size is None:
        shard_size = 200_000
    if shard_size is not None and (scenes or out is None):
        raise typer.BadParameter("needs --out, and is not for --scenes", param_hint="--shard-size")
    if out is not None and out.exists() and shard_size is None:
        raise StrAppError(f"{out} exists already: choose another --out or remove it")
    if only_words and words is None:
        raise typer.BadParameter("needs --words FILE", param_hint="--only-words")
    style = make_style(set_ or [])
    font_set = find_fonts(fonts)
    backgrounds = find_photographs(photographs)
    texts = TextSource(read_words(words) if words else frequent_words(), only_words)
    if left_out := texts.words.left_out:
        note(
            f"{words}: {len(left_out)} words are left out, such as {left_out[0]!r}: only printable ASCII of up to "
            f"{MAX_LENGTH} characters is drawn"
        )
    typer.echo(
        f"{len(font_set)} fonts ({font_files.fingerprint(font_set)}), {len(backgrounds)} photographs "
        f"({photograph_files.fingerprint(backgrounds)}), {len(texts.words)} words, seed {seed}"
    )
    renderer = (font_set, texts, seed, style, backgrounds)
    if preview is not None:
        painter = SceneComposer(*renderer) if scenes else Renderer(*renderer)
        _write_preview(preview, painter, start, count)
    if out is None:
        return
    started = time.monotonic()
    with ProgressBar("drawing", count) as progress:
        if scenes:
            write_scenes(out, renderer, count, start, workers or 1, progress.update)
        elif shard_size is None:
            render_to_lmdb(out, renderer, count, start, workers or 1, progress.update)
        else:
            from str_app.bulk.ray_pool import RayOptions
            from str_app.bulk.rendering import render_shards

            mapped = pool.make_pool(workers, RayOptions(ray_address, workers) if ray else None)
            render_shards(out, renderer, count, start, shard_size, mapped, progress.update)
    seconds = time.monotonic() - started
    kind = "scenes" if scenes else "crops"
    typer.echo(f"{out}: {count} {kind} in {seconds:.0f} s ({count / seconds:.0f} per second)")


def _write_preview(path: Path, painter: Renderer | SceneComposer, start: int, count: int) -> None:
    from str_app.datasets.renderer import SceneComposer
    from str_app.datasets.renderer.sheet import contact_sheet, scene_sheet
    from str_app.errors import StrAppError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(painter, SceneComposer):
            scenes = [painter.compose(index) for index in range(start, start + min(count, PREVIEWED_SCENES))]
            sheet = scene_sheet(scenes)
        else:
            sheet = contact_sheet(
                [painter.render(index) for index in range(start, start + min(count, PREVIEWED_CROPS))]
            )
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise StrAppError(f"{path}: cannot write the preview: {error}") from error
