"""How punctuation marks alone are read, and how many are returned without text, as a Markdown table.

    python research/punctuation.py --count 40

Each mark is plain in a crop as high as a line, plain in a crop cut to its ink, and drawn with the renderer's effects.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from PIL import Image, ImageDraw, ImageFont

from str_app.datasets.renderer import Renderer, Style, TextSource, WordList, find_fonts, find_photographs
from str_app.datasets.renderer.probes import PLAIN_FAMILIES
from str_app.reader import Reader
from str_app.reading import Reading
from str_app.views import lacks_evidence

MARKS = "-.',:_|!"
KINDS = ("line", "tight", "effects")


def plain(mark: str, kind: str, rng: np.random.Generator, faces: list[str]) -> npt.NDArray[np.uint8]:
    """A mark in one of these font files, 20 to 60 pixels to the em, dark on light or light on dark."""
    face = faces[int(rng.integers(len(faces)))]
    size = int(rng.integers(20, 60))
    font = ImageFont.truetype(face, size)
    ascent, descent = font.getmetrics()
    x0, y0, x1, y1 = (round(edge) for edge in font.getbbox(mark, anchor="ls"))
    pad = max(2, size // 8)
    if kind == "line":
        x0, y0, x1, y1 = 0, pad - ascent, int(font.getlength(mark)), descent - pad
    mask = Image.new("L", (max(3, x1 - x0 + 2 * pad), max(3, y1 - y0 + 2 * pad)))
    ImageDraw.Draw(mask).text((pad - x0, pad - y0), mark, fill=255, font=font, anchor="ls")
    ink = np.asarray(mask) / 255
    half = 0.4 if rng.random() < 0.5 else -0.4
    grey = 255 * (0.5 + half - 2 * half * ink) + rng.normal(0, 2, ink.shape)
    return np.repeat(np.clip(np.rint(grey), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def withheld(reading: Reading) -> bool:
    """Whether the default policy returns no text."""
    return not reading.text or lacks_evidence(reading)


def main(
    count: Annotated[int, typer.Option(help="Crops of each mark and kind.")] = 40,
    seed: Annotated[int, typer.Option(help="Seed of the crops.")] = 5,
    model: Annotated[str, typer.Option(help="A name of `str-app models`, or a checkpoint.")] = "small",
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
) -> None:
    """Draw, read without the rule for blank pictures, and print the table."""
    reader = Reader.load(model, precision="fp32", threads=threads, blank=False)
    faces = [font.path for font in find_fonts(None).fonts if font.family in PLAIN_FAMILIES]
    print("| crop | mark | withheld, % | right if nothing were withheld, % | right but withheld, % | most frequent |")
    print("|---|---|---:|---:|---:|---|")
    for kind in KINDS:
        for mark in MARKS:
            rng = np.random.default_rng([seed, ord(mark)])
            if kind == "effects":
                words = TextSource(WordList([mark], [1.0]), only_words=True)
                renderer = Renderer(find_fonts(None), words, seed, Style(), find_photographs(None))
                crops = [renderer.render(index).image for index in range(count)]
            else:
                crops = [plain(mark, kind, rng, faces) for _ in range(count)]
            readings = reader.read_crops(crops)
            shares = [
                100 * float(np.mean([test(reading) for reading in readings]))
                for test in (withheld, lambda r: r.text == mark, lambda r: r.text == mark and withheld(r))  # noqa: B023
            ]
            frequent = ", ".join(text for text, _ in Counter(r.text for r in readings).most_common(3))
            print(f"| {kind} | `{mark}` | {' | '.join(f'{share:.0f}' for share in shares)} | {frequent} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
