"""Which of the renderer's effects pull a trained network where photographs want it: a table of gradients.

    python research/effect_gradients.py --real validation/IIIT5K_train --real validation/IC15_train --count 1024

For each set of real crops, the direction is found in which the weights would have to move for its loss to fall fastest,
every filter and matrix by one unit of the spectral norm: the step that Muon would take. An entry of the table is how
fast the loss of crops that all have an effect falls along it, in nats per token, with its standard error over batches.
What is positive teaches what photographs need; what is negative unlearns it. The network is not changed. Crops above
`--limit` nats per token contribute nothing on either side, since illegible ones would dominate.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from torch import Tensor

from str_app.datasets.opening import open_source
from str_app.datasets.renderer import Renderer, TextSource, find_fonts, find_photographs, frequent_words, make_style
from str_app.datasets.renderer.style import Style
from str_app.datasets.sample import Sample
from str_app.engines.load import checkpoint_file
from str_app.engines.precision import has_bf16
from str_app.models.checkpoint import load_checkpoint
from str_app.training.objective import Objective
from str_app.training.samples import collate, prepared_for

BATCH = 64
PARTS = 4  # of the crops with an effect, for the standard error


class Slope(NamedTuple):
    """Mean loss of some crops, in nats per token, and its gradient for each weight."""

    nats: float
    gradient: list[Tensor]


def main(
    real: Annotated[list[Path], typer.Option(help="Real crops; repeatable, one column each.")],
    count: Annotated[int, typer.Option(min=PARTS, help="Renderings with each effect.")] = 1024,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="EFFECT=SHARE", help="Shares of the other effects; repeatable.")
    ] = None,
    effect: Annotated[list[str] | None, typer.Option(help="Only this effect; repeatable. Default: all.")] = None,
    limit: Annotated[float, typer.Option(help="Crops above so many nats per token are left out.")] = 2.5,
    model: Annotated[str, typer.Option(help="A name of `str-app models`, or a checkpoint.")] = "small",
    seed: Annotated[int, typer.Option(help="Seed of the renderings.")] = 777,
) -> None:
    """Print the table, its first row over four times as many crops in which nothing is certain."""
    style = make_style(set_ or [])
    if unknown := set(effect or ()) - {field.name for field in fields(Style)}:
        raise typer.BadParameter(f"no effect {', '.join(sorted(unknown))}")
    network, _ = load_checkpoint(checkpoint_file(model))
    objective = Objective(network, 0.0, ctc=False, attention=False, loss_limit=limit).eval()
    objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    sources = [open_source(path) for path in real]
    steps = [steepest(slope(objective, [source[index] for index in range(len(source))])) for source in sources]
    fonts, photographs, texts = find_fonts(None), find_photographs(None), TextSource(frequent_words())

    print(f"| effect | share | nats | {' | '.join(source.name for source in sources)} |")
    print("|---|---:|---:|" + "---:|" * len(sources))
    for row, (name, kind) in enumerate(kinds(style)):
        if name and effect and name not in effect:
            continue
        renderer = Renderer(fonts, texts, seed + row, kind, photographs)
        size = count // PARTS
        slopes = [
            slope(objective, [renderer.render(part * size + index) for index in range(size)])
            for part in range(PARTS if name else 4 * PARTS)
        ]
        nats = statistics.mean(part.nats for part in slopes)
        falls = [[fall(part.gradient, step) for part in slopes] for step in steps]
        share = f"{getattr(style, name):g}" if name else ""
        print(f"| {name or '–'} | {share} | {nats:.3f} | {' | '.join(map(with_error, falls))} |", flush=True)


def kinds(style: Style) -> Iterator[tuple[str, Style]]:
    """The style itself, without a name; and for each effect, the style in which every crop has it."""
    yield "", style
    for field in fields(Style):
        yield field.name, style.always(field.name)


def slope(objective: Objective, samples: Sequence[Sample]) -> Slope:
    """The loss of the samples that the network can spell, up to the objective's limit."""
    network = objective.model
    usable = (prepared for sample in samples if (prepared := prepared_for(network, sample)))
    ordered = sorted(usable, key=lambda prepared: prepared.width)
    objective.zero_grad()
    nats, tokens = 0.0, 0
    for first in range(0, len(ordered), BATCH):
        batch = collate(ordered[first : first + BATCH], network.preprocessing)
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16(torch.device("cpu"))):
            loss = objective(*batch[:5])[0]
        loss.backward()
        nats += loss.item()
        tokens += int(batch.lengths.sum()) + len(batch.lengths)
    return Slope(nats / tokens, [weight.grad / tokens for weight in objective.parameters() if weight.grad is not None])


def steepest(slope: Slope) -> list[Tensor]:
    """The step of unit spectral norm against the gradient, by singular value decomposition; 0 for vectors."""
    steps = []
    for gradient in slope.gradient:
        if gradient.ndim == 1:
            steps.append(torch.zeros_like(gradient))
            continue
        left, _, right = torch.linalg.svd(gradient.flatten(1).double(), full_matrices=False)
        steps.append(-(left @ right).reshape(gradient.shape))
    return steps


def fall(gradient: Sequence[Tensor], step: Sequence[Tensor]) -> float:
    """How fast the loss with this gradient falls along the step, per unit of its norm."""
    return -sum((part.double() * change).sum().item() for part, change in zip(gradient, step, strict=True))


def with_error(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):+.2f} ± {statistics.stdev(values) / len(values) ** 0.5:.2f}"


if __name__ == "__main__":
    typer.run(main)
