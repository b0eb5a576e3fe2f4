"""Plain crops with exactly controlled properties, to measure the limits of a recogniser."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from str_app.datasets.renderer.fonts import FontError, FontSet
from str_app.datasets.renderer.words import WordList
from str_app.datasets.sample import Sample

# Fonts of running text and signs; all fonts are used if none of these is installed.
PLAIN_FAMILIES = frozenset(
    "Cabin|DejaVu Sans|DejaVu Serif|EB Garamond|Lato|Liberation Sans|Liberation Serif|Noto Sans|Noto Serif|Open Sans|"
    "PT Sans|PT Serif|Roboto|Roboto Slab".split("|")
)
SUPERSAMPLING = 4  # drawn 4 times as large, then averaged: letters of 4 pixels are as exact as those of 48
MARGIN = 0.25  # around the ink, in letter heights
NOISE = 2.0  # grey levels; without noise no contrast would be too low
MAX_WORD_DRAWS = 400
ALPHABETS = {
    "letters": string.ascii_lowercase,
    "digits": string.digits,
    "codes": string.ascii_uppercase + string.digits,
}


ProbeText = Literal["words", "letters", "digits", "codes"]


@dataclass(frozen=True)
class Probe:
    """Properties of a crop.

    Attributes:
        length: minimum and maximum number of characters.
        letter_height: of a capital H, in pixels.
        rotation: degrees, counter-clockwise; the crop is the bounding box of the rotated word.
        contrast: difference of ink and background as a fraction of the luminance range, around middle grey.
        text: `"words"` of the word list, joined and cut if none has that length, or random `"letters"`, `"digits"` or
            `"codes"` of capitals and digits.
        gap: pixels between neighbouring characters, besides what the font leaves.
    """

    length: tuple[int, int] = (4, 8)
    letter_height: float = 32.0
    rotation: float = 0.0
    contrast: float = 0.8
    text: ProbeText = "words"
    gap: float = 0.0


class ProbeSource:
    """Crops of a probe, drawn on access; implements `str_app.datasets.sample.Source`.

    Crop `index` has the same text, font and polarity for every height, rotation and contrast of a seed, so that curves
    over these are comparable. A crop depends on (fonts, words, probe, seed, index) only.

    Args:
        fonts: from `find_fonts`.
        words: from `frequent_words`.
        probe: the properties.
        count: number of crops.
        seed: of text, font, polarity and noise.
    """

    def __init__(self, fonts: FontSet, words: WordList, probe: Probe, count: int, seed: int = 0) -> None:
        plain = [font for font in fonts.fonts if font.family in PLAIN_FAMILIES] or list(fonts.fonts)
        self._fonts = [font for font in plain if font.glyphs.issuperset(string.ascii_letters)] or plain
        self._words, self._probe, self._count, self._seed = words, probe, count, seed

    @property
    def name(self) -> str:
        """Always `probes`."""
        return "probes"

    def __len__(self) -> int:
        return self._count

    def label(self, index: int) -> str:
        """The text of crop `index`."""
        return self._text(self._generator(index))

    def identifier(self, index: int) -> str:
        """The index as text."""
        return str(index)

    def __getitem__(self, index: int) -> Sample:
        """Crop `index`, without boxes.

        Raises:
            FontError: no font has all the glyphs of its text.
        """
        rng = self._generator(index)
        text = self._text(rng)
        capable = [font for font in self._fonts if font.glyphs.issuperset(text)]
        if not capable:
            raise FontError(f"no font has all the glyphs of {text!r}: install more fonts")
        ink = _draw(capable[int(rng.integers(len(capable)))].path, text, self._probe)
        dark_on_light = rng.random() < 0.5
        half = self._probe.contrast / 2 * (1 if dark_on_light else -1)
        grey = 255 * (0.5 + half - 2 * half * ink) + rng.normal(0, NOISE, ink.shape)
        return Sample(np.repeat(np.clip(np.rint(grey), 0, 255).astype(np.uint8)[..., None], 3, axis=2), text)

    def _generator(self, index: int) -> np.random.Generator:
        if not 0 <= index < self._count:
            raise IndexError(f"probe {index} of {self._count}")
        return np.random.Generator(np.random.PCG64([self._seed, index]))

    def _text(self, rng: np.random.Generator) -> str:
        shortest, longest = self._probe.length
        length = int(rng.integers(shortest, longest + 1))
        if self._probe.text in ALPHABETS:
            alphabet = ALPHABETS[self._probe.text]
            text = "".join(alphabet[k] for k in rng.integers(len(alphabet), size=length))
        else:
            text = _word(rng, self._words, length)
        return text.upper() if rng.random() < 0.5 else text


def _word(rng: np.random.Generator, words: WordList, length: int) -> str:
    """A word of exactly `length` letters, or several joined and cut."""
    joined = ""
    for _ in range(MAX_WORD_DRAWS):
        word = words.draw(rng).lower()
        if not (word.isascii() and word.isalpha()):
            continue
        if len(word) == length:
            return word
        joined = (joined + word)[:length]
    return joined or "x" * length


def _draw(path: str, text: str, probe: Probe) -> npt.NDArray[np.float64]:
    """Coverage by ink in [0, 1], (H, W), with a margin."""
    trial = ImageFont.truetype(path, 200, layout_engine=ImageFont.Layout.BASIC)
    _, top, _, bottom = trial.getbbox("H", anchor="ls")
    size = 200 * SUPERSAMPLING * probe.letter_height / (bottom - top)
    font = ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
    gap = round(probe.gap * SUPERSAMPLING)
    mask = _crop_to_ink(_spaced_text(font, text, gap) if gap else _text_mask(font, text))
    if probe.rotation:
        mask = _crop_to_ink(_rotate(mask, probe.rotation))
    pad = round(MARGIN * probe.letter_height) * SUPERSAMPLING
    right, below = -mask.shape[1] % SUPERSAMPLING, -mask.shape[0] % SUPERSAMPLING
    mask = np.pad(mask, ((pad, pad + below), (pad, pad + right)))
    height, width = mask.shape[0] // SUPERSAMPLING, mask.shape[1] // SUPERSAMPLING
    return np.asarray(
        mask.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING).mean(axis=(1, 3)) / 255.0, dtype=np.float64
    )


def _text_mask(font: ImageFont.FreeTypeFont, text: str) -> npt.NDArray[np.uint8]:
    glyphs, _ = font.getmask2(text, mode="L")
    return np.frombuffer(bytes(glyphs), np.uint8).reshape(glyphs.size[1], glyphs.size[0])


def _spaced_text(font: ImageFont.FreeTypeFont, text: str, gap: int) -> npt.NDArray[np.uint8]:
    """The mask of a text whose characters advance by `gap` pixels more, without kerning."""
    ascent, descent = font.getmetrics()
    lefts = np.cumsum([0.0, *(font.getlength(char) + gap for char in text[:-1])])
    line = Image.new("L", (int(lefts[-1] + 2 * font.size), ascent + descent), 0)
    pen = ImageDraw.Draw(line)
    for char, left in zip(text, lefts.tolist(), strict=True):
        pen.text((left + font.size / 2, 0), char, fill=255, font=font)
    return np.asarray(line, dtype=np.uint8)


def _rotate(mask: npt.NDArray[np.uint8], degrees: float) -> npt.NDArray[np.uint8]:
    height, width = mask.shape
    side = int(np.ceil(np.hypot(height, width))) + 2
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    matrix[:, 2] += (side - width) / 2, (side - height) / 2
    return np.asarray(cv2.warpAffine(mask, matrix, (side, side)), np.uint8)


def _crop_to_ink(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    rows, columns = np.flatnonzero(mask.max(axis=1) > 32), np.flatnonzero(mask.max(axis=0) > 32)
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
