"""The verb `select`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def select(
    source: Annotated[Path, typer.Argument(help="LMDB of crops with labels.")],
    out: Annotated[Path, typer.Option(help="LMDB to write.")],
    model: Annotated[str, typer.Option(help="Who reads them: a name of `str-app models`, or a checkpoint.")] = "small",
    sure: Annotated[
        float, typer.Option(min=0.01, max=1, help="A crop is easy from this probability of its label on.")
    ] = 0.95,
    easy: Annotated[float, typer.Option(min=0, max=1, help="Share of the easy crops to keep.")] = 0.25,
    hopeless: Annotated[
        float, typer.Option(min=0, help="Nats a character from which a crop is left out as not legible; inf keeps it.")
    ] = 2.5,
    seed: Annotated[int, typer.Option(help="Which easy crops are kept.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
) -> None:
    """Copy the crops worth learning from: what a model does not read surely yet, and some of what it does.

    Example: str-app select data/words.lmdb --out data/words-hard.lmdb --model small --easy 0.25
    """
    import torch

    from str_app.datasets.lmdb_store import LmdbSource, LmdbWriter
    from str_app.engines.torch_engine import checkpoint_file
    from str_app.models.checkpoint import load_checkpoint
    from str_app.training.selection import KINDS, Rule, Selected
    from str_app.training.selection import select as select_crops

    if threads:
        torch.set_num_threads(threads)
    crops = LmdbSource(source)
    network, _ = load_checkpoint(checkpoint_file(model))
    selected = Selected()
    with LmdbWriter(out) as writer:
        for selected in select_crops(network, crops, writer, Rule(sure, easy, hopeless, seed), device):
            typer.echo(f"{selected.crops.total()} of {len(crops)} crops, {selected.kept} kept", err=True)
    loss = sum(selected.nats.values()) or 1.0
    for kind in KINDS:
        share = selected.crops[kind] / len(crops)
        typer.echo(f"{kind}: {share:.1%} of the crops, {selected.nats[kind] / loss:.1%} of the loss")
    typer.echo(f"{out}: {selected.kept} of {len(crops)} crops")
