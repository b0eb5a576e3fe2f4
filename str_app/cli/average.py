"""The verb `average`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from str_app.cli import options
from str_app.cli.printing import write_line


def average(
    checkpoints: Annotated[list[Path], typer.Argument(help="Checkpoints fine-tuned from the same weights.")],
    out: Annotated[Path, typer.Option(help="Checkpoint to write.")],
    share: Annotated[
        list[float] | None, typer.Option(help="Weight of each checkpoint in the mean, in order. Default: equal.")
    ] = None,
    val: Annotated[
        list[Path] | None, typer.Option(help="LMDB or folder on which to calibrate and score the mean; repeatable.")
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Store filters and matrices in float16: half the size, loaded as float32.")
    ] = False,
    device: options.Device = "cpu",
) -> None:
    """Write the mean of several checkpoints' weights, which often reads better than any one of them.

    Example: str-app average a.safetensors b.safetensors --share 7 --share 3 --val data/val --out mean.safetensors
    """
    from str_app.datasets.opening import open_source
    from str_app.engines.load import torch_device
    from str_app.errors import StrAppError, writing
    from str_app.models.checkpoint import save_checkpoint
    from str_app.training.averaging import average_checkpoints
    from str_app.training.finishing import calibrate_and_score

    if out.exists():
        raise StrAppError(f"{out} exists already: choose another --out, or remove it")
    torch_device(device)
    sources = [open_source(path) for path in val or []]
    averaged = average_checkpoints(checkpoints, share or [1.0] * len(checkpoints))
    with writing(out):
        save_checkpoint(out, *averaged, half=half)
    try:
        results = calibrate_and_score(out, sources, device) if sources else []
    except BaseException:
        out.unlink()  # it lacks what was asked for
        raise
    for result in results:
        score = result.score()
        write_line(f"{score.name}: {score.accuracy:.2f} (n = {score.n}, ECE {score.ece:.1f})")
