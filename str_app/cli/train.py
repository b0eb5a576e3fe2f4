"""The verb `train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from str_app.errors import StrAppError


def train(
    out: Annotated[Path, typer.Option(help="Folder of the run: state, weights and metrics.")],
    train: Annotated[list[Path] | None, typer.Option(help="LMDB or folder to train on; repeatable.")] = None,
    weights: Annotated[
        list[float] | None, typer.Option(help="Sampling weight of each --train, in order. Default: its size.")
    ] = None,
    val: Annotated[
        list[Path] | None, typer.Option(help="LMDB or folder to choose the best weights by; repeatable.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Network to train from scratch: a name that `str-app models` lists [default: small]."),
    ] = None,
    start_from: Annotated[
        str | None, typer.Option("--from", help="Fine-tune: start from the weights of a preset or a checkpoint file.")
    ] = None,
    charset: Annotated[
        Path | None,
        typer.Option(
            help="Text file with all characters, old and new, that the model is to read; line breaks are ignored."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the checkpoints. Default: the preset, or with --from the name of the --out folder."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    auto_resume: Annotated[
        bool,
        typer.Option(
            "--auto-resume",
            help="Continue the run in --out if there is one, else start it: for commands that are started again.",
        ),
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any other setting of str_app/training/settings.py; repeatable."
        ),
    ] = None,
) -> None:
    """Train a recogniser. For several processes: torchrun --nproc-per-node N -m str_app train …

    Example: str-app train --preset small --train data/synth.lmdb --val data/val --out runs/first --set steps=20000
    """
    from str_app.datasets.text_files import read_lines
    from str_app.training.loop import STATE, Finished, Stopped
    from str_app.training.loop import train as run
    from str_app.training.settings import load_settings, make_settings

    if auto_resume and (out / STATE).is_file():
        resume = True
        preset = start_from = charset = None  # the run has its model
    options = {
        "preset": preset,
        "start_from": start_from,
        "name": name,
        "train": tuple(map(str, train)) if train else None,
        "weights": tuple(weights) if weights else None,
        "validation": tuple(map(str, val)) if val else None,
        "charset": "".join(read_lines(charset)) if charset else None,
    }
    if options["charset"] == "":
        raise StrAppError(f"{charset}: no character in this file")
    if preset is not None and start_from is not None:
        raise StrAppError("--from brings its own network: leave out --preset")
    given = {key: value for key, value in options.items() if value is not None}
    if resume and {"preset", "start_from", "charset"} & given.keys():
        raise StrAppError("--resume continues with the run's own model: leave out --preset, --from and --charset")
    base = load_settings(out / "settings.json") if resume else None
    settings = make_settings(set_ or [], base, **given)
    if resume and settings != base:
        typer.echo(
            "the settings differ from the interrupted run's: the result will differ from an uninterrupted run", err=True
        )
    try:
        run(settings, out, resume=resume)
    except Stopped as stopped:
        typer.echo(f"str-app train: {stopped}", err=True)
        raise typer.Exit(128 + stopped.signum) from None
    except Finished as finished:
        if not auto_resume:
            raise
        typer.echo(f"str-app train: {finished}", err=True)
