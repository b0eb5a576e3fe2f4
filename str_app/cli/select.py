"""The verb `select`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from str_app.cli import options
from str_app.cli.printing import write_line

if TYPE_CHECKING:
    from str_app.training.selection import Selected


def select(
    source: Annotated[Path, typer.Argument(help="Data set of labelled crops: an LMDB, shards, or a folder.")],
    out: Annotated[Path, typer.Option(help="LMDB to write; must not exist.")],
    model: Annotated[str, typer.Option(help="A name that `str-app models` lists, or a checkpoint file.")] = "small",
    sure: Annotated[
        float, typer.Option(min=0.01, max=1, help="A crop is easy if its label has at least this probability.")
    ] = 0.95,
    easy: Annotated[float, typer.Option(min=0, max=1, help="Share of the easy crops to keep.")] = 0.25,
    hopeless: Annotated[
        float,
        typer.Option(
            min=0, help="Nats per character from which a crop counts as illegible and is dropped; inf: never."
        ),
    ] = 2.5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the choice among the easy crops.")] = 0,
    device: options.Device = "cpu",
    threads: options.Threads = None,
) -> None:
    """Copy the crops worth training on: those a model does not read reliably yet, and a share of the easy ones.

    Example: str-app select data/words.lmdb --out data/words-hard.lmdb --model small --easy 0.25
    """
    import torch

    from str_app.datasets.lmdb_writer import LmdbWriter
    from str_app.datasets.opening import open_source
    from str_app.engines.load import EngineOptions, checkpoint_file, torch_device
    from str_app.models.checkpoint import load_checkpoint
    from str_app.training.selection import Rule, Selected
    from str_app.training.selection import select as select_crops

    EngineOptions(device, threads)  # checks both
    torch_device(device)
    if threads:
        torch.set_num_threads(threads)
    checkpoint = checkpoint_file(model)
    crops = open_source(source)
    network, _ = load_checkpoint(checkpoint)
    selected = Selected()
    with LmdbWriter(out) as writer:
        for selected in select_crops(network, crops, writer, Rule(sure, easy, hopeless, seed), device):
            typer.echo(f"{selected.crops.total()} of {len(crops)} crops, {selected.kept} kept", err=True)
        if not selected.kept:  # an error follows: no LMDB is empty
            _print_kinds(selected)
    _print_kinds(selected)
    write_line(f"{out}: {selected.kept} of {len(crops)} crops")


def _print_kinds(selected: Selected) -> None:
    from str_app.training.selection import KINDS

    count, loss = selected.crops.total(), sum(selected.nats.values()) or 1.0
    for kind in KINDS:
        first = f"; the first: {selected.reason}" if kind == "unusable" and selected.reason else ""
        share = selected.crops[kind] / count
        write_line(f"{kind}: {share:.1%} of the crops, {selected.nats[kind] / loss:.1%} of the loss{first}")
