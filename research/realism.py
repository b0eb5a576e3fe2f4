"""How well a small network tells renderings from real crops: 50 % means perfect realism, 100 % none.

    python research/realism.py --real validation/IIIT5K_train --real validation/IC15_train --rendered data/a.lmdb \
        --rendered data/b.lmdb --sheet telling.png

Each rendered set is judged separately, by a network of its own, on crops held out from its training. The sheet shows
the renderings that are recognised most confidently: what to improve next.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import nn
from torch.nn import functional as F

from str_app.datasets.opening import open_source
from str_app.datasets.renderer.sheet import contact_sheet
from str_app.datasets.sample import Sample, Source
from str_app.engines.precision import has_bf16
from str_app.evaluation.metrics import wilson_interval
from str_app.models.backbones.resnet import ResNet, ResNetConfig
from str_app.models.preprocessing import Preprocessing, pad_right

EPOCHS, BATCH = 10, 50


def main(
    real: Annotated[list[Path], typer.Option(help="Real crops; repeatable, in equal shares.")],
    rendered: Annotated[list[Path], typer.Option(help="Rendered crops; repeatable, judged separately.")],
    count: Annotated[int, typer.Option(help="Crops of each kind; a quarter is held out.")] = 2000,
    seeds: Annotated[int, typer.Option(help="Number of networks trained for each set.")] = 3,
    sheet: Annotated[
        Path | None, typer.Option(help="Image file for the renderings that are recognised most easily.")
    ] = None,
) -> None:
    """Train real against rendered, and print the accuracy on held-out crops."""
    part = count // len(real)
    truth = [sample for path in real for sample in draw(open_source(path), part)]
    random.Random(0).shuffle(truth)
    for path in rendered:
        fakes = draw(open_source(path), len(truth))
        correct = total = 0
        scores = np.zeros(len(fakes))
        for seed in range(seeds):
            hits, judged, fake_scores = judge(truth, fakes, seed)
            correct, total = correct + hits, total + judged
            scores += fake_scores
        accuracy, low, high = (100 * share for share in (correct / total, *wilson_interval(correct, total)))
        print(f"{path.name}: {accuracy:.1f} % told from real ({low:.1f}–{high:.1f}, n = {total})", flush=True)
        if sheet is not None:
            easiest = [fakes[index] for index in np.argsort(-scores)[:96]]
            contact_sheet(easiest).save(sheet.with_stem(f"{sheet.stem}-{path.stem}"))


def draw(source: Source, count: int) -> list[Sample]:
    """`count` samples, evenly spaced over the source."""
    return [source[int(index)] for index in np.linspace(0, len(source) - 1, min(count, len(source)))]


def judge(truth: Sequence[Sample], fakes: Sequence[Sample], seed: int) -> tuple[int, int, np.ndarray]:
    """Correct answers on the held-out quarter, its size, and each rendering's score as such (0 if trained on)."""
    torch.manual_seed(seed)
    preprocessing = Preprocessing()
    canvases = []
    for sample in (*truth, *fakes):
        canvas, _ = preprocessing(sample.image)
        canvases.append(pad_right(canvas, preprocessing.width))
    images = torch.from_numpy(np.stack(canvases)).permute(0, 3, 1, 2).float() / 127.5 - 1
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.cat([torch.zeros(len(truth)), torch.ones(len(fakes))])
    held_out = torch.arange(len(labels)) % 4 == seed % 4
    network = nn.Sequential(
        ResNet(ResNetConfig(stem=(16, 24), stages=(32, 64, 96), blocks=(1, 1, 1), strides=((2, 2),) * 3)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(96, 1),
    )
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    chosen = torch.nonzero(~held_out).squeeze(1)
    steps = EPOCHS * len(chosen) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    order = torch.cat([chosen[torch.randperm(len(chosen))] for _ in range(EPOCHS)])
    for step in range(steps):
        batch = order[step * BATCH : (step + 1) * BATCH]
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16(torch.device("cpu"))):
            logits = network(images[batch]).squeeze(1)
        loss = F.binary_cross_entropy_with_logits(logits.float(), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.inference_mode():
        scores = torch.cat([network(part).squeeze(1) for part in images[held_out].split(100)])
    correct = int(((scores > 0) == (labels[held_out] > 0.5)).sum())
    probabilities = torch.zeros(len(labels))
    probabilities[held_out] = scores.sigmoid()
    return correct, len(scores), probabilities[len(truth) :].numpy()


if __name__ == "__main__":
    typer.run(main)
