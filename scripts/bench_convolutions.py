"""How much time the compiled convolutions save: a network's encoder, and a training step, with and without them.

    python -m str_app.models.kernels
    python scripts/bench_convolutions.py [--model small] [--threads 1] [--width 96]

Both take turns on the same random canvases, float32; medians of the turns' ratios.
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
    model: Annotated[str, typer.Option(help="Name or checkpoint.")] = "small",
    threads: Annotated[int, typer.Option(help="torch's.")] = 1,
    width: Annotated[int, typer.Option(help="Columns of a canvas.")] = 96,
    turns: Annotated[int, typer.Option(help="Times that each is measured.")] = 9,
) -> None:
    """Print a table."""
    if find_library() is None:
        raise typer.BadParameter("no compiled functions: build them by `python -m str_app.models.kernels`")
    torch.set_num_threads(threads)
    network, _ = load_checkpoint(checkpoint_file(model))
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    folded = fold_batch_norms(network)
    assert isinstance(folded, Recognizer)
    print("| what | crops | torch, ms | compiled, ms | ratio |\n|---|---:|---:|---:|---:|")
    for name, batches, run in (("encode", (1, 8, 64), encoding(folded)), ("training step", (64,), training(network))):
        for batch in batches:
            images = torch.rand(batch, 3, network.preprocessing.height, width).to(memory_format=torch.channels_last)
            print_turns(name, batch, partial(run, images), turns)


def encoding(network: Recognizer) -> Callable[[torch.Tensor], object]:
    """The backbone and what stands between it and the decoder."""

    @torch.inference_mode()
    def run(images: torch.Tensor) -> object:
        return network.encode(images, torch.full((len(images),), images.shape[3]))

    return run


def training(network: Recognizer) -> Callable[[torch.Tensor], object]:
    """Forwards and backwards through all of the network, eight characters a crop."""
    network.train()

    def run(images: torch.Tensor) -> None:
        targets = torch.ones(len(images), 9, dtype=torch.int64)
        logits, *_ = network(images, torch.full((len(images),), images.shape[3]), targets)
        logits.logsumexp(dim=-1).sum().backward()

    return run


def print_turns(name: str, batch: int, run: Callable[[], object], turns: int) -> None:
    """Time both, in turn."""
    found: list[tuple[float, float]] = []
    for _ in range(turns + 1):
        with torch_operations_only():
            plain = seconds(run)
        found.append((plain, seconds(run)))
    plain, compiled = (statistics.median(one[k] for one in found[1:]) for k in (0, 1))
    ratio = statistics.median(a / b for a, b in found[1:])
    print(f"| {name} | {batch} | {plain * 1e3:.1f} | {compiled * 1e3:.1f} | {ratio:.2f} |", flush=True)


def seconds(run: Callable[[], object]) -> float:
    """What one call takes, of the process's own time."""
    start = time.process_time()
    run()
    return time.process_time() - start


if __name__ == "__main__":
    typer.run(main)
