"""How real each effect of the renderer looks to the recogniser: a table of shares, odds, and the shares they suggest.

    python research/effect_realism.py --real validation/IIIT5K_train --real validation/IC15_train --count 400

A linear judge tells real from rendered crops by the mean and standard deviation of the recogniser's features. It is
trained on all real crops, each set with the same weight, and on renderings. Its odds (real : rendered) are averaged
over crops that all have an effect and over crops without it. The last column is the share of the effect at which the
renderings would have these odds: Bayes' rule for one effect.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from torch import Tensor
from torch.nn import functional as F

from str_app.datasets.opening import open_source
from str_app.datasets.renderer import Renderer, TextSource, find_fonts, find_photographs, frequent_words
from str_app.datasets.renderer.style import Style
from str_app.datasets.sample import Sample
from str_app.engines.load import checkpoint_file
from str_app.engines.precision import has_bf16
from str_app.models.checkpoint import load_checkpoint
from str_app.models.preprocessing import pad_right
from str_app.models.recognizer import Recognizer

SHRINKAGE = 3e-3  # L2 penalty on the judge's weights
MAX_LOG_ODDS = 4.0  # log-odds are clipped here; otherwise a few crops would dominate


class Judge(NamedTuple):
    """Log-odds of features, (n, F) → (n,)."""

    mean: Tensor
    std: Tensor
    weights: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        return ((features - self.mean) / self.std) @ self.weights + self.bias


def main(
    real: Annotated[list[Path], typer.Option(help="Real crops; repeatable, each set with the same weight.")],
    count: Annotated[int, typer.Option(help="Renderings for each entry of the table.")] = 400,
    judged: Annotated[int, typer.Option(help="Renderings to train the judge on.")] = 4000,
    model: Annotated[str, typer.Option(help="A name of `str-app models`, or a checkpoint.")] = "small",
    seed: Annotated[int, typer.Option(help="Seed of the renderings.")] = 777,
) -> None:
    """Print the judge's accuracy on held-out crops, then the table."""
    network, _ = load_checkpoint(checkpoint_file(model))
    network.eval()
    fonts, photographs, texts = find_fonts(None), find_photographs(None), TextSource(frequent_words())

    def rendered(style: Style, seed: int, count: int) -> Tensor:
        renderer = Renderer(fonts, texts, seed, style, photographs)
        return describe(network, [renderer.render(index) for index in range(count)])

    sets = [open_source(path) for path in real]
    truth = [describe(network, [source[index] for index in range(len(source))]) for source in sets]
    weights = torch.cat([torch.full((len(part),), 1 / (len(part) * len(truth))) for part in truth])
    crops, fakes = torch.cat(truth), rendered(Style(), seed + 1, judged)
    a, b = torch.arange(len(crops)) % 4 == 0, torch.arange(len(fakes)) % 4 == 0
    judge = train(crops[~a], weights[~a], fakes[~b])
    accuracy = (
        float(weights[a] @ (judge(crops[a]) > 0).float() / weights[a].sum() + (judge(fakes[b]) < 0).float().mean()) / 2
    )
    print(
        f"told apart: {100 * accuracy:.1f} % of held-out crops ({int(a.sum())} real, {int(b.sum())} rendered)\n",
        flush=True,
    )
    judge = train(crops, weights, fakes)

    print("| effect | share | odds with it | without | share by the odds |\n|---|---:|---:|---:|---:|")
    for field in fields(Style):
        name, share = field.name, getattr(Style(), field.name)
        with_it, without = (
            judge(rendered(style, seed, count)).clamp(-MAX_LOG_ODDS, MAX_LOG_ODDS).exp()
            for style in (Style().always(name), replace(Style(), **{name: 0.0}))
        )
        on, off = float(with_it.mean()), float(without.mean())
        errors = [float(odds.std() / len(odds) ** 0.5) for odds in (with_it, without)]
        print(
            f"| `{name}` | {share:g} | {on:.2f} ± {errors[0]:.2f} | {off:.2f} ± {errors[1]:.2f} | "
            f"{share * on / (share * on + (1 - share) * off):.3f} |",
            flush=True,
        )


@torch.inference_mode()
def describe(network: Recognizer, samples: list[Sample], batch_size: int = 64) -> Tensor:
    """Mean and standard deviation of each channel over the columns that a crop covers, (n, 2 C)."""
    preprocessing = network.preprocessing
    described = []
    for first in range(0, len(samples), batch_size):
        canvases_and_widths = [preprocessing(sample.image) for sample in samples[first : first + batch_size]]
        canvases = torch.from_numpy(
            np.stack([pad_right(canvas, preprocessing.width) for canvas, _ in canvases_and_widths])
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16(torch.device("cpu"))):
            features = network.features(network.normalize(canvases)).float()  # (B, C, H', W')
        covered = (
            torch.tensor([covered for _, covered in canvases_and_widths]) * features.shape[3] / preprocessing.width
        )
        inside = (torch.arange(features.shape[3]) < covered.unsqueeze(1)).float()[:, None, None]
        cells = inside.sum((1, 2, 3)).unsqueeze(1) * features.shape[2]
        mean = (features * inside).sum((2, 3)) / cells
        std = (((features - mean[:, :, None, None]) * inside) ** 2).sum((2, 3)).div(cells).sqrt()
        described.append(torch.cat([mean, std], 1))
    return torch.cat(described)


def train(crops: Tensor, weights: Tensor, fakes: Tensor) -> Judge:
    """Logistic regression; real and rendered crops have the same total weight."""
    together = torch.cat([crops, fakes])
    mean, std = together.mean(0), together.std(0) + 1e-6
    labels = torch.cat([torch.ones(len(crops)), torch.zeros(len(fakes))])
    shares = torch.cat([weights / weights.sum(), torch.full((len(fakes),), 1 / len(fakes))])
    judge = Judge(mean, std, torch.zeros(together.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True))
    optimizer = torch.optim.LBFGS([judge.weights, judge.bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        error = F.binary_cross_entropy_with_logits(judge(together), labels, shares, reduction="sum")
        error = error + SHRINKAGE * judge.weights.square().sum()
        error.backward()
        return error

    optimizer.step(loss)
    return Judge(mean, std, judge.weights.detach(), judge.bias.detach())


if __name__ == "__main__":
    typer.run(main)
