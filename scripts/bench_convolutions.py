"""How much time the compiled convolutions save, in a network's encoder and in a training step.

    python -m str_app.models.kernels
    python scripts/bench_convolutions.py [--model small] [--threads 1] [--width 96]

Random canvases in float32, with and without compiled convolutions in turn; the ratio is the median of paired ratios.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
import typer

from str_app.engines.load import checkpoint_file
from str_app.models.backbones.conv_norm import fold_batch_norms
from str_app.models.checkpoint import load_checkpoint
from str_app.models.kernels.dispatch import torch_operations_only
from str_app.models.kernels.library import find_library
from str_app.models.recognizer import Recognizer


def main(
    model: Annotated[str, typer.Option(help="Model name or checkpoint.")] = "small",
    threads: Annotated[int, typer.Option(help="Threads that torch uses.")] = 1,
    width: Annotated[int, typer.Option(help="Columns of a canvas.")] = 96,
    turns: Annotated[int, typer.Option(help="Measured pairs.")] = 9,
) -> None:
    """Print a Markdown table."""
    if find_library() is None:
        raise typer.BadParameter("no compiled functions: build them by `python -m str_app.models.kernels`")
    torch.set_num_threads(threads)
    network, _ = load_checkpoint(checkpoint_file(model))
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    folded = fold_batch_norms(network)
    assert isinstance(folded, Recognizer)
    print("| what | crops | torch, ms | compiled, ms | ratio |\n|---|---:|---:|---:|---:|")
    for name, batches, run in (
        ("encode", (1, 8, 64), encoder(folded)),
        ("training step", (64,), training_step(network)),
    ):
        for batch in batches:
            images = torch.rand(batch, 3, network.preprocessing.height, width).to(memory_format=torch.channels_last)
            print_times(name, batch, partial(run, images), turns)


def encoder(network: Recognizer) -> Callable[[torch.Tensor], object]:
    """Images → what the decoder attends to, without gradients."""

    @torch.inference_mode()
    def run(images: torch.Tensor) -> object:
        return network.encode(images, torch.full((len(images),), images.shape[3]))

    return run


def training_step(network: Recognizer) -> Callable[[torch.Tensor], object]:
    """Forward and backward pass of the whole network, eight characters a crop."""
    network.train()

    def run(images: torch.Tensor) -> None:
        targets = torch.ones(len(images), 9, dtype=torch.int64)
        logits, *_ = network(images, torch.full((len(images),), images.shape[3]), targets)
        logits.logsumexp(dim=-1).sum().backward()

    return run


def print_times(name: str, batch: int, run: Callable[[], object], turns: int) -> None:
    """Time both ways in turn and print a row of the table; the first pair is not counted."""
    pairs: list[tuple[float, float]] = []
    for _ in range(turns + 1):
        with torch_operations_only():
            plain = seconds(run)
        pairs.append((plain, seconds(run)))
    plain, compiled = (statistics.median(pair[k] for pair in pairs[1:]) for k in (0, 1))
    ratio = statistics.median(plain / compiled for plain, compiled in pairs[1:])
    print(f"| {name} | {batch} | {plain * 1e3:.1f} | {compiled * 1e3:.1f} | {ratio:.2f} |", flush=True)


def seconds(run: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    run()
    return time.process_time() - start


if __name__ == "__main__":
    typer.run(main)
