"""How often something is read in pictures without text, as a Markdown table.

    python research/textless.py --count 200

The pictures have the renderer's backgrounds; scenes are windows of cluttered surfaces and of whatever photographs are
installed, of which a few show text.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from str_app.datasets.renderer import Style, find_photographs
from str_app.datasets.renderer.backgrounds import TexturePool, make_background, ramp
from str_app.datasets.renderer.camera import photograph
from str_app.datasets.renderer.colours import choose_palette
from str_app.reader import Reader

KINDS = ("flat", "noise", "gradient", "background", "scene")


def picture(kind: str, rng: np.random.Generator, pool: TexturePool) -> npt.NDArray[np.uint8]:
    """One picture, 14 to 100 pixels high, 0.8 to 6 times as wide."""
    height = int(rng.integers(14, 100))
    width = int(height * np.exp(rng.uniform(np.log(0.8), np.log(6))))
    shape = (height, width, 3)
    colour, second = rng.uniform(0, 255, (2, 3))
    if kind == "background":
        plain = make_background(rng, pool, choose_palette(rng), height, width, Style())
        return photograph(rng, plain, min(0.6 * height, 40), Style())
    if kind == "scene":
        pixels = pool.scene(rng, height, width)
    elif kind == "gradient":
        share = ramp(rng, height, width)[:, :, None]
        pixels = colour * (1 - share) + second * share + rng.normal(0, rng.choice([0, 2]), shape)
    else:
        deviation = rng.uniform(3, 60) if kind == "noise" else rng.choice([0, 1, 2])
        pixels = colour + rng.normal(0, deviation, shape)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def main(
    count: Annotated[int, typer.Option(help="Pictures of each kind.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the pictures.")] = 1,
    model: Annotated[str, typer.Option(help="A name of `str-app models`, or a checkpoint.")] = "small",
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
) -> None:
    """Make the pictures, read them, and print the table."""
    reader = Reader.load(model, precision="fp32", threads=threads)
    pool = TexturePool(find_photographs(None))
    print("| pictures | n | without text, % | texts read |\n|---|---:|---:|---|")
    for index, kind in enumerate(KINDS):
        rng = np.random.default_rng([seed, index])
        texts = [reading.text for reading in reader.read_crops(picture(kind, rng, pool) for _ in range(count))]
        read = sorted(filter(None, texts))
        print(f"| {kind} | {count} | {100 * (1 - len(read) / count):.1f} | {', '.join(read[:6])} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
