"""Makes the images of docs/tutorial/fine-tuning.md: German words and prices, with characters that `small` lacks.

    python examples/german_words.py data/german [FONTS] # data/german/train: 500 crops, data/german/val: 300

They stand in for your own images. Needs the extra `synth`, and fonts: a folder, or those of scripts/install_fonts.sh.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont
from wordfreq import top_n_list

from str_app.datasets.renderer import find_fonts

NEW = "äöüÄÖÜß€"


def texts(rng: np.random.Generator, count: int) -> list[str]:
    """Distinct texts: four in five have a new character, one in five has none."""
    words = [word for word in top_n_list("de", 40_000) if 2 < len(word) < 16 and word.isalpha()]
    with_new = [word for word in words if set(word) & set(NEW)]
    without = [word for word in words if word.isascii()]
    prices = [f"{euro},{cent:02}€" for euro in range(100) for cent in range(0, 100)]
    share = count // 5
    pools = ((with_new, 3 * share), (prices, share), (without, count - 4 * share))
    chosen = [str(text) for pool, size in pools for text in rng.choice(pool, size, replace=False)]
    cases = (str.upper, str.capitalize, str.lower)
    return [text if "ß" in text else cases[rng.integers(3)](text) for text in chosen]


def photograph(rng: np.random.Generator, text: str, font_file: str) -> np.ndarray:
    """The text in one colour on another, slightly rotated, blurred, with noise; uint8 (H, W, 3)."""
    font = ImageFont.truetype(font_file, 48)
    left, top, right, bottom = font.getbbox(text)
    pad = rng.integers(4, 20, 4)
    size = (int(right - left + pad[0] + pad[2]), int(bottom - top + pad[1] + pad[3]))
    paper, ink = rng.integers(0, 256, (2, 3))
    while abs(paper.mean() - ink.mean()) < 70:
        paper, ink = rng.integers(0, 256, (2, 3))
    picture = Image.new("RGB", size, tuple(paper.tolist()))
    ImageDraw.Draw(picture).text((pad[0] - left, pad[1] - top), text, tuple(ink.tolist()), font)
    rotation = cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), rng.uniform(-5, 5), 1.0)
    image = cv2.warpAffine(np.asarray(picture), rotation, size, borderMode=cv2.BORDER_REPLICATE)
    height = int(rng.integers(16, 65))
    image = cv2.resize(image, (max(8, size[0] * height // size[1]), height), interpolation=cv2.INTER_AREA)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.1, 1.2))
    light = np.linspace(*rng.uniform(0.7, 1.2, 2), image.shape[1])[None, :, None]
    return np.clip(image * light + rng.normal(0, rng.uniform(1, 8), image.shape), 0, 255).astype(np.uint8)


def main(out: Path, fonts_folder: Path | None = None) -> None:
    """Write both folders; `val` shares no text and no font with `train`."""
    rng = np.random.default_rng(0)
    usable = [
        font.path
        for font in find_fonts(fonts_folder).fonts
        if set(map(ord, NEW)) <= set(TTFont(font.path).getBestCmap())
    ]
    fonts = rng.permutation(usable)
    words = texts(rng, 800)
    order = rng.permutation(800)
    for name, indices, files in (("train", order[:500], fonts[::2]), ("val", order[500:], fonts[1::2])):
        (out / name / "images").mkdir(parents=True)
        lines = []
        for number, index in enumerate(indices):
            path = f"images/{number:03}.jpg"
            image = photograph(rng, words[index], str(rng.choice(files)))
            Image.fromarray(image).save(out / name / path, quality=int(rng.integers(50, 95)))
            lines.append(f"{path}\t{words[index]}\n")
        (out / name / "labels.tsv").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw German words and prices: OUT/train, 500 crops, OUT/val, 300.")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write, such as data/german")
    parser.add_argument(
        "fonts", type=Path, nargs="?", metavar="FONTS", help="folder of fonts; default: those installed"
    )
    given = parser.parse_args()
    main(given.out, given.fonts)
