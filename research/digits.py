"""Rendered meter digits with all characters and with `characters="0-9"`: accuracy and calibration.

    python research/digits.py --count 600

Single digits, higher than wide, are plain or have the renderer's effects; so are registers of 4 to 8 digits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import numpy as np
import typer

from str_app.datasets.renderer import (
    Renderer,
    Style,
    TextSource,
    WordList,
    find_fonts,
    find_photographs,
    frequent_words,
)
from str_app.datasets.renderer.probes import Probe, ProbeSource
from str_app.datasets.sample import Sample
from str_app.evaluation.metrics import expected_calibration_error
from str_app.reader import Reader


def main(
    count: Annotated[int, typer.Option(help="Crops of each kind.")] = 600,
    seed: Annotated[int, typer.Option(help="Seed of the crops.")] = 81,
    model: Annotated[str, typer.Option(help="A name of `str-app models`, or a checkpoint.")] = "small",
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
) -> None:
    """Render, read, and print the table."""
    reader = Reader.load(model, precision="fp32", threads=threads)
    registers = ["".join(map(str, digits)) for digits in registers_of(np.random.default_rng(seed), count)]
    kinds = {
        "single digits, plain": plain((1, 1), seed, count),
        "single digits, effects": rendered(list("0123456789"), seed, count),
        "registers, plain": plain((4, 8), seed, count),
        "registers, effects": rendered(registers, seed, count),
    }
    print("| crops | n | right, % | ECE, % | confidence, % | right with 0-9, % | ECE, % | confidence, % |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, crops in kinds.items():
        samples = list(crops)
        cells = []
        for characters in (None, "0-9"):
            readings = reader.read_crops([sample.image for sample in samples], characters=characters)
            right = [reading.text == sample.text for reading, sample in zip(readings, samples, strict=True)]
            confidences = [reading.confidence for reading in readings]
            error = expected_calibration_error(confidences, right)
            cells += [100 * float(np.mean(right)), 100 * error, 100 * float(np.mean(confidences))]
        print(f"| {name} | {len(samples)} | {' | '.join(f'{cell:.1f}' for cell in cells)} |", flush=True)


def registers_of(rng: np.random.Generator, count: int) -> list[list[int]]:
    """Random digits, 4 to 8 a register."""
    return [rng.integers(10, size=int(rng.integers(4, 9))).tolist() for _ in range(count)]


def plain(length: tuple[int, int], seed: int, count: int) -> Iterable[Sample]:
    """Crops of so many digits, 20 pixels high, without effects."""
    probes = ProbeSource(find_fonts(None), frequent_words(), Probe(length, 20, text="digits"), count, seed)
    return (probes[index] for index in range(count))


def rendered(texts: list[str], seed: int, count: int) -> Iterable[Sample]:
    """Crops of these texts with the renderer's effects."""
    words = TextSource(WordList(texts, [1.0] * len(texts)), only_words=True)
    renderer = Renderer(find_fonts(None), words, seed, Style(), find_photographs(None))
    return (renderer.render(index) for index in range(count))


if __name__ == "__main__":
    typer.run(main)
