"""Fits the weights by which the turn of a crop is chosen (`TurnWeights`), and measures the choice.

    python research/turns.py --val validation/IIIT5K_train --val validation/IC15_train --val validation/SVT_train

Every crop is read in its four turns, which are also the four turns of the crop turned by 90, 180 and 270°. Upright
crops weigh 0.6, turned ones 0.4; single characters are upright only, since a turned Z is an N. Each set is measured
with the weights given and with those fitted without it. Twelve minutes on one core for the command above.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
import typer

from str_app.datasets.opening import open_source
from str_app.datasets.renderer import (
    Renderer,
    Style,
    TextSource,
    WordList,
    find_fonts,
    find_photographs,
    frequent_words,
)
from str_app.datasets.renderer.probes import Probe, ProbeSource, ProbeText
from str_app.datasets.sample import Sample, UnreadableSample
from str_app.evaluation.protocol import protocol_of
from str_app.evaluation.sources import evenly_spaced
from str_app.policy import TurnWeights
from str_app.reader import Reader
from str_app.reading import Reading
from str_app.views import to_canvas
from str_app.views.turns import QUARTER_TURNS, turn_features

UPRIGHT = 0.6
L2 = 1e-4
CHUNK = 32


class Turns(NamedTuple):
    """A set's readings in the four turns of its upright crops.

    Attributes:
        features: (N, 4, 6).
        right: (N, 4).
        same: (N, 4), whether they say the same as the upright one.
        ambiguous: (N,), single characters, and what is surely read as another text of this length in another turn.
        lone: whether all are single characters.
    """

    features: npt.NDArray[np.float64]
    right: npt.NDArray[np.bool_]
    same: npt.NDArray[np.bool_]
    ambiguous: npt.NDArray[np.bool_]
    lone: bool

    def turned(self, by: int) -> tuple[npt.NDArray[np.float64], list[int]]:
        """Features of the crops given turned, and the order of the upright crop's turns there."""
        order = [(turn - by) % 4 for turn in QUARTER_TURNS]
        features = self.features[:, order].copy()
        is_turned = np.array([0.0, 1.0, 1.0, 1.0])
        features[:, :, -2] = is_turned
        features[:, :, -1] = is_turned * np.isclose(features[:, :, -3], np.log(2))
        return features, order


def main(
    val: Annotated[list[Path], typer.Option(help="Labelled upright crops; repeatable.")],
    limit: Annotated[int, typer.Option(help="Crops of each set, evenly spaced.")] = 2000,
    model: Annotated[str, typer.Option(help="A name of `str-app models`, or a checkpoint.")] = "small",
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
) -> None:
    """Read, fit, and print the weights and the table."""
    reader = Reader.load(model, precision="fp32", threads=threads)
    sets = {path.name: read(reader, crops_of(path, limit), lone=False) for path in val}
    sets |= {name: read(reader, samples, name in LONE) for name, samples in rendered().items()}
    weights = fit(sets.values())
    print("TurnWeights(" + ", ".join(f"{name}={value:.2f}" for name, value in weights._asdict().items()) + ")\n")
    print("| set | n | upright, % | upright crops | turned | unambiguous turned | left out: upright | turned |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, turns in sets.items():
        others = fit(other for other_name, other in sets.items() if other_name != name)
        upright = 100 * turns.right[:, 0].mean()
        cells = [*differences(turns, weights), *differences(turns, others)[:2]]
        print(f"| {name} | {len(turns.right)} | {upright:.2f} | {' | '.join(f'{cell:+.2f}' for cell in cells)} |")


LONE = {"rendered characters", "digits, framed", "capitals and digits, framed", "letters, framed"}


def rendered() -> dict[str, Iterator[Sample]]:
    """Renderings: words, codes, and single characters in frames of 1:1 to 1:2."""
    fonts, words, photographs = find_fonts(None), frequent_words(), find_photographs(None)
    characters = list(string.ascii_letters + string.digits + 2 * string.digits)

    def renderings(texts: TextSource, seed: int, count: int) -> Iterator[Sample]:
        renderer = Renderer(fonts, texts, seed, Style(), photographs)
        return (renderer.render(index) for index in range(count))

    def framed(text: ProbeText, seed: int, count: int = 150) -> Iterator[Sample]:
        rng = np.random.default_rng(seed)
        for index in range(count):
            probe = Probe(
                (1, 1), float(rng.uniform(10, 32)), float(rng.normal(0, 3)), float(rng.uniform(0.3, 0.9)), text
            )
            sample = ProbeSource(fonts, words, probe, count, seed)[index]
            yield Sample(frame(sample.image, float(rng.uniform(1, 2))), sample.text)

    codes = ProbeSource(fonts, words, Probe(length=(2, 10), text="codes", letter_height=24), 150, 74)
    return {
        "rendered words": renderings(TextSource(words), 4711, 400),
        "codes": (codes[index] for index in range(len(codes))),
        "rendered characters": renderings(TextSource(WordList(characters, [1.0] * len(characters)), True), 4712, 450),
        "digits, framed": framed("digits", 71),
        "capitals and digits, framed": framed("codes", 72),
        "letters, framed": framed("letters", 73),
    }


def frame(image: npt.NDArray[np.uint8], ratio: float) -> npt.NDArray[np.uint8]:
    """The image widened or heightened at its edges until its height is `ratio` times its width."""
    height, width = image.shape[:2]
    above = max(0, round(width * ratio) - height) // 2
    beside = max(0, round(height / ratio) - width) // 2
    return np.asarray(cv2.copyMakeBorder(image, above, above, beside, beside, cv2.BORDER_REPLICATE), np.uint8)


def crops_of(path: Path, limit: int) -> Iterator[Sample]:
    """Readable crops of a data set, evenly spaced."""
    source = open_source(path)
    for index in evenly_spaced(len(source), limit):
        try:
            yield source[index]
        except UnreadableSample:
            continue


def read(reader: Reader, samples: Iterable[Sample], lone: bool) -> Turns:
    """Read every crop in its four turns."""
    fold, every = protocol_of(reader.charset).fold, list(samples)
    features, right, same, ambiguous = [], [], [], []
    for start in range(0, len(every), CHUNK):
        chunk = every[start : start + CHUNK]
        views = [to_canvas(sample.image, reader.preprocessing, turn) for sample in chunk for turn in QUARTER_TURNS]
        readings = reader.read_canvases(views)
        for index, sample in enumerate(chunk):
            four = readings[4 * index : 4 * index + 4]
            texts, label = [fold(reading.text) for reading in four], fold(sample.text)
            features.append([turn_features(reading, turn) for turn, reading in enumerate(four)])
            right.append([text == label for text in texts])
            same.append([text == texts[0] for text in texts])
            others = [reading for reading, text in zip(four[1:], texts[1:], strict=True) if text != label]
            ambiguous.append(len(label) < 2 or any(rivals(four[0], other) for other in others))
    return Turns(np.array(features), np.array(right), np.array(same), np.array(ambiguous), lone)


def rivals(upright: Reading, other: Reading) -> bool:
    """Whether another turn is read as surely, as a text of the same length."""
    letters = float(np.prod([character.confidence for character in other.characters]))
    return len(other.text) == len(upright.text) and other.confidence > 0.9 and letters > 0.7


def fit(sets: Iterable[Turns]) -> TurnWeights:
    """Maximise the likelihood of the turns that say what the upright crop says."""
    features, targets, shares = [], [], []
    for turns in sets:
        for by in QUARTER_TURNS[: 1 if turns.lone else 4]:
            given, order = turns.turned(by)
            features.append(given)
            targets.append(turns.same[:, order])
            of_turn = UPRIGHT if by == 0 else (1 - UPRIGHT) / 3
            shares.append(np.full(len(given), of_turn / len(given)))
    x, target = torch.tensor(np.concatenate(features)), torch.tensor(np.concatenate(targets))
    share = torch.tensor(np.concatenate(shares))
    weights = torch.zeros(x.shape[2], dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        log_probs = torch.log_softmax(x @ weights, dim=1).masked_fill(~target, -torch.inf)
        loss = -(share * torch.logsumexp(log_probs, dim=1)).sum() / share.sum() + L2 * (weights @ weights)
        loss.backward()
        return loss

    optimizer.step(closure)
    return TurnWeights(*weights.tolist())


def differences(turns: Turns, weights: TurnWeights) -> tuple[float, float, float]:
    """Accuracy less that of the upright readings, in points: of upright, of turned, and of unambiguous turned crops."""
    chosen = []
    for by in QUARTER_TURNS:
        features, order = turns.turned(by)
        best = (features @ np.array(weights)).argmax(axis=1)
        chosen.append(turns.right[:, order][np.arange(len(best)), best])
    gains = 100.0 * (np.array(chosen, float) - turns.right[:, 0])  # (4, N)
    clear = gains[1:, ~turns.ambiguous]
    return float(gains[0].mean()), float(gains[1:].mean()), float(clear.mean()) if clear.size else float("nan")


if __name__ == "__main__":
    typer.run(main)
