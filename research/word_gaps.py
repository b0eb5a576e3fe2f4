"""Train the network that takes lines apart into words, on lines cut from composed scenes.

Example:
    research/word_gaps.py lines --out runs/gaps/fit.npz --seed 811 --scenes 1500
    research/word_gaps.py lines --out runs/gaps/held.npz --seed 899 --scenes 200
    research/word_gaps.py train --fit runs/gaps/fit.npz --held runs/gaps/held.npz --out models/weights/word_gaps.onnx
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
import typer
from torch import Tensor, nn

from str_app.datasets.renderer import (
    Scene,
    SceneComposer,
    SceneWord,
    find_fonts,
    find_photographs,
    frequent_words,
    make_style,
)
from str_app.models.detectors.gap_columns import HEIGHT, STRIDE
from str_app.models.detectors.word_gaps import WordGapNetwork
from str_app.photos.photo_reader import quad_around
from str_app.photos.separator import DEFAULT_GAPS, scale, words_of

app = typer.Typer(no_args_is_help=True)
LINES_PER_SCENE = 14
GAP_WEIGHT = 2.0
PLACE_WEIGHT = 4.0  # of top and bottom in the loss
LONE_WORDS = 0.5  # share of the lines of a single word that are kept


class Line(NamedTuple):
    """The crop of a line.

    Attributes:
        pixels: uint8 (HEIGHT, W, 3).
        words: float32 (n, 4), left, right, top and bottom of each word as shares of the crop's sides.
    """

    pixels: npt.NDArray[np.uint8]
    words: npt.NDArray[np.float32]


@app.command()
def lines(
    out: Annotated[Path, typer.Option(help="File of lines to write, .npz.")],
    seed: Annotated[int, typer.Option(help="Of the scenes.")] = 0,
    scenes: Annotated[int, typer.Option(help="Number of scenes.")] = 1000,
    start: Annotated[int, typer.Option(help="Index of the first scene.")] = 0,
) -> None:
    """Cut the lines out of composed scenes, roughly, as a detector would."""
    cv2.setNumThreads(1)
    composer = SceneComposer(find_fonts(None), frequent_words(), seed, make_style([]), find_photographs(None))
    rng = np.random.default_rng([seed, start])
    found: list[Line] = []
    for index in range(start, start + scenes):
        found += lines_of_scene(rng, composer.compose(index))
        if index % 100 == 0:
            typer.echo(f"scene {index}: {len(found)} lines")
    save(out, found)


def lines_of_scene(rng: np.random.Generator, scene: Scene) -> list[Line]:
    """Some of the legible lines of a scene."""
    by_line: dict[int, list[SceneWord]] = {}
    for word in scene.words:
        by_line.setdefault(word.line, []).append(word)
    candidates = [
        words
        for words in by_line.values()
        if all(len(word.character_quads) for word in words) and (len(words) > 1 or rng.random() < LONE_WORDS)
    ]
    chosen = rng.permutation(len(candidates))[:LINES_PER_SCENE]
    cut = [_cut(rng, scene.image, candidates[index]) for index in chosen]
    return [line for line in cut if line is not None]


def _cut(rng: np.random.Generator, image: npt.NDArray[np.uint8], words: list[SceneWord]) -> Line | None:
    quad = quad_around([word.quad for word in words])
    along, down = quad[1] - quad[0], quad[3] - quad[0]
    height = float(np.linalg.norm(down))
    along /= max(float(np.linalg.norm(along)), 1e-6)
    down /= max(height, 1e-6)
    # Detectors leave most room around small text.
    top, bottom = (rng.uniform(0.1, 0.7, 2) if rng.random() < 0.4 else rng.uniform(-0.06, 0.3, 2)) * height
    left, right = rng.uniform(-0.05, 0.5, 2) * height
    slope = rng.normal(0, 0.04, 4)[:, None] * height * down
    moves = [-left * along - top * down, right * along - top * down]
    moves += [right * along + bottom * down, -left * along + bottom * down]
    corners = (quad + np.stack(moves) + slope).astype(np.float32)
    size = (
        round(float(np.linalg.norm(corners[1] - corners[0]))),
        round(float(np.linalg.norm(corners[3] - corners[0]))),
    )
    if min(size) < 6 or size[0] > 70 * size[1]:
        return None
    target = np.array([[0, 0], [size[0], 0], [size[0], size[1]], [0, size[1]]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners - np.float32(0.5), target - np.float32(0.5))
    crop = np.asarray(cv2.warpPerspective(image, matrix, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)
    boxes = []
    for word in words:
        points = np.concatenate([word.quad, word.character_quads.reshape(-1, 2)]).astype(np.float32)
        places = cv2.perspectiveTransform(points[None] - np.float32(0.5), matrix)[0] + 0.5
        (_, upper), lower = places[:2].mean(axis=0), places[2:4].mean(axis=0)[1]
        letters = places[4:, 0]
        boxes.append((letters.min() / size[0], letters.max() / size[0], upper / size[1], lower / size[1]))
    return Line(scale(crop), np.array(boxes, np.float32))


def save(path: Path, found: list[Line]) -> None:
    """Write lines to a file; `load` reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        pixels=np.concatenate([line.pixels for line in found], axis=1),
        widths=np.array([line.pixels.shape[1] for line in found]),
        words=np.concatenate([line.words for line in found]),
        counts=np.array([len(line.words) for line in found]),
    )


def load(path: Path) -> list[Line]:
    """The lines of a file."""
    file = np.load(path)
    pixels = np.split(file["pixels"], np.cumsum(file["widths"])[:-1], axis=1)
    words = np.split(file["words"], np.cumsum(file["counts"])[:-1])
    return [Line(*pair) for pair in zip(pixels, words, strict=True)]


def targets_of(line: Line) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Of each column, float32: (3, W / STRIDE) 1 in a word and 0 outside, top, bottom; (2, W / STRIDE) weights.

    A gap has one column at least. Gaps between words are few columns, but all that matters: they weigh more. Top and
    bottom count within words only.
    """
    count = line.pixels.shape[1] // STRIDE
    centres = (np.arange(count) + 0.5) / count
    targets, weights = np.zeros((3, count), np.float32), np.ones((2, count), np.float32)
    for left, right, top, bottom in line.words:
        targets[:, (centres > left) & (centres < right)] = [[1.0], [top], [bottom]]
    for end, start in zip(line.words[:-1, 1], line.words[1:, 0], strict=True):
        targets[:, min(count - 1, int((end + start) / 2 * count))] = 0
    within = (centres > line.words[0, 0]) & (centres < line.words[-1, 1])
    weights[0, within & (targets[0] == 0)] += GAP_WEIGHT
    weights[1] = targets[0]
    return targets, weights


@app.command()
def train(
    fit: Annotated[list[Path], typer.Option(help="Lines to learn from; repeatable.")],
    held: Annotated[Path, typer.Option(help="Lines to report on.")],
    out: Annotated[Path, typer.Option(help="Network to write, .onnx.")],
    steps: Annotated[int, typer.Option(help="Number of batches of 32 lines.")] = 3000,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Learn, report how many held lines come apart into the right words, and export."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    pool = [line for path in fit for line in load(path)]
    widths = np.array([line.pixels.shape[1] for line in pool])
    held_lines = load(held)
    network = WordGapNetwork()
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, steps, pct_start=0.1)
    started = time.monotonic()
    for step in range(1, steps + 1):
        # Of about the same width, or the batch is mostly padding.
        width = widths[rng.integers(len(pool))]
        near = np.flatnonzero((widths > 0.8 * width) & (widths < 1.25 * width))
        batch = [pool[index] for index in rng.choice(near, 32)]
        inputs, columns, targets, weights = collate(rng, batch)
        with torch.autocast("cpu", torch.bfloat16):  # half the time where the processor has instructions for it
            outputs = network(inputs, columns).float()
        losses = nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], targets[:, 0], reduction="none")
        places = (outputs[:, 1:] - targets[:, 1:]).abs().mean(dim=1)
        loss = (losses * weights[:, 0]).sum() / weights[:, 0].sum()
        loss = loss + PLACE_WEIGHT * (places * weights[:, 1]).sum() / weights[:, 1].sum()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 250 == 0 or step == steps:
            right, joined, cut, overlap = report(network, held_lines)
            typer.echo(
                f"step {step}: loss {loss.item():.4f}; of {len(held_lines)} held lines {right:.1%} in the right words "
                f"(with a mean overlap of {overlap:.1%}), {joined:.1%} with words joined, {cut:.1%} with a word cut; "
                f"{time.monotonic() - started:.0f} s"
            )
    export(network, out)


def collate(rng: np.random.Generator, batch: list[Line]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels (B, 3, HEIGHT, W), widths (B,), targets (B, 3, W / STRIDE), weights (B, 2, W / STRIDE)."""
    lines = [_augmented(rng, line) for line in batch]
    width = max(line.pixels.shape[1] for line in lines)
    pixels = np.zeros((len(lines), HEIGHT, width, 3), np.uint8)
    targets = np.zeros((len(lines), 3, width // STRIDE), np.float32)
    weights = np.zeros((len(lines), 2, width // STRIDE), np.float32)
    for row, line in enumerate(lines):
        count = line.pixels.shape[1] // STRIDE
        pixels[row, :, : line.pixels.shape[1]] = line.pixels
        targets[row, :, :count], weights[row, :, :count] = targets_of(line)
    inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    columns = torch.tensor([line.pixels.shape[1] for line in lines])
    return inputs, columns, torch.from_numpy(targets), torch.from_numpy(weights)


def _augmented(rng: np.random.Generator, line: Line) -> Line:
    """On its head, narrower or wider, in negative, with less contrast: gaps stay gaps."""
    pixels, words = line
    if rng.random() < 0.1:
        pixels, words = pixels[::-1, ::-1], (1 - words)[::-1, [1, 0, 3, 2]]
    if rng.random() < 0.2:
        pixels = 255 - pixels
    if rng.random() < 0.3:
        width = STRIDE * max(4, round(pixels.shape[1] * float(np.exp(rng.normal(0, 0.15))) / STRIDE))
        pixels = np.asarray(cv2.resize(np.ascontiguousarray(pixels), (width, HEIGHT)), np.uint8)
    if rng.random() < 0.3:
        low, high = sorted(rng.uniform(0, 255, 2))
        if high - low > 40:
            pixels = (low + pixels.astype(np.float32) * ((high - low) / 255)).astype(np.uint8)
    if rng.random() < 0.2:
        pixels = np.asarray(
            cv2.GaussianBlur(np.ascontiguousarray(pixels), (0, 0), float(rng.uniform(0.4, 1.2))), np.uint8
        )
    return Line(np.ascontiguousarray(pixels), np.ascontiguousarray(words))


def report(network: WordGapNetwork, held: list[Line]) -> tuple[float, float, float, float]:
    """Shares of lines in the right words, with too few words, with too many; mean overlap of words of right lines."""
    network.eval()
    right = joined = cut = 0
    overlaps: list[float] = []
    with torch.inference_mode():
        for pixels, labels in held:
            inputs = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
            words = np.array(words_of(network(inputs)[0].numpy(), DEFAULT_GAPS))
            joined += len(words) < len(labels)
            cut += len(words) > len(labels)
            if len(words) == len(labels):
                centres = words[:, :2].mean(axis=1)
                right += bool(((centres > labels[:, 0]) & (centres < labels[:, 1])).all())
                overlaps += _overlaps(words, labels)
    network.train()
    return right / len(held), joined / len(held), cut / len(held), float(np.mean(overlaps))


def _overlaps(words: npt.NDArray[np.float64], labels: npt.NDArray[np.float32]) -> list[float]:
    """Intersection over union of words, (n, 4), with labels, (n, 4)."""
    sides = [
        (np.minimum(words[:, high], labels[:, high]) - np.maximum(words[:, low], labels[:, low])).clip(0)
        for low, high in ((0, 1), (2, 3))
    ]
    common = sides[0] * sides[1]
    areas = [(each[:, 1] - each[:, 0]) * (each[:, 3] - each[:, 2]) for each in (words, labels)]
    return list(common / (areas[0] + areas[1] - common))


class _OfPixels(nn.Module):
    """Takes pixels as they are, uint8 (B, HEIGHT, W, 3)."""

    def __init__(self, network: WordGapNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, lines: Tensor) -> Tensor:
        columns: Tensor = self.network(lines.permute(0, 3, 1, 2).float() / 127.5 - 1)
        return columns


def export(network: WordGapNetwork, out: Path) -> None:
    """Write the network as one file."""
    module = _OfPixels(network).eval()
    example = torch.zeros(2, HEIGHT, 64, 3, dtype=torch.uint8)
    width = torch.export.Dim("half_width", min=4, max=2048) * STRIDE
    program = torch.onnx.export(
        module,
        (example,),
        input_names=["lines"],
        output_names=["columns"],
        dynamic_shapes={"lines": {0: torch.export.Dim("batch"), 2: width}},
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    out.parent.mkdir(parents=True, exist_ok=True)
    program.save(out)
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    app()
