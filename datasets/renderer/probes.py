"""Plain crops with one property set exactly, to find out where a recogniser's limits are."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ImageFont

from str_app.datasets.renderer.fonts import FontSet
from str_app.datasets.renderer.words import WordList
from str_app.datasets.sample import Sample

# Fonts of running text and signs; probes use the whole font set where none of them is installed.
PLAIN_FAMILIES = frozenset(
    "Cabin|DejaVu Sans|DejaVu Serif|EB Garamond|Lato|Liberation Sans|Liberation Serif|Noto Sans|Noto Serif|Open Sans|"
    "PT Sans|PT Serif|Roboto|Roboto Slab".split("|")
)
FINE = 4  # drawn so many times larger, then averaged down: letters of 4 pixels are as exact as those of 48
MARGIN = 0.25  # letter heights around the ink
NOISE = 2.0  # grey levels: without any, no contrast would be too low
WORD_TRIES = 400


@dataclass(frozen=True)
class Probe:
    """What is drawn.

    Attributes:
        length: characters; a pair of numbers is a range, both ends included.
        letter_height: pixels of a capital H.
        rotation: degrees, counter-clockwise; the crop stays upright and encloses the word.
        contrast: difference of paper and ink as a share of the luminance range, around middle grey.
        text: `"words"` of the word list, joined and cut where it has none of that length, or `"letters"` at random.
    """

    length: tuple[int, int] = (4, 8)
    letter_height: float = 32.0
    rotation: float = 0.0
    contrast: float = 0.8
    text: Literal["words", "letters"] = "words"


class ProbeSource:
    """Crops of one probe, drawn when they are asked for; implements `str_app.datasets.sample.Source`.

    Crop `index` has the same text, font and colours for every height, rotation and contrast of one seed, so that
    curves over these compare like with like. A function of (fonts, words, probe, seed, index) alone.

    Args:
        fonts: from `find_fonts`.
        words: from `frequent_words`.
        probe: what is drawn.
        count: number of crops.
        seed: of text, font, polarity and noise.
    """

    def __init__(self, fonts: FontSet, words: WordList, probe: Probe, count: int, seed: int = 0) -> None:
        plain = [font for font in fonts.fonts if font.family in PLAIN_FAMILIES] or list(fonts.fonts)
        self._fonts = [font for font in plain if font.glyphs.issuperset(string.ascii_letters)] or plain
        self._words, self._probe, self._count, self._seed = words, probe, count, seed

    @property
    def name(self) -> str:
        """Says what it is; the probe's values are in `Probe`."""
        return "probes"

    def __len__(self) -> int:
        return self._count

    def label(self, index: int) -> str:
        """The text of crop `index`."""
        return self._text(self._generator(index))

    def identifier(self, index: int) -> str:
        """The index, as text."""
        return str(index)

    def __getitem__(self, index: int) -> Sample:
        """Crop `index`, without boxes."""
        rng = self._generator(index)
        text = self._text(rng)
        able = [font for font in self._fonts if font.glyphs.issuperset(text)]
        if not able:
            raise ValueError(f"no font of the probes has all the glyphs of {text!r}: install more fonts")
        ink = _draw(able[int(rng.integers(len(able)))].path, text, self._probe)
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
        if self._probe.text == "letters":
            text = "".join(string.ascii_lowercase[k] for k in rng.integers(26, size=length))
        else:
            text = _word(rng, self._words, length)
        return text.upper() if rng.random() < 0.5 else text


def _word(rng: np.random.Generator, words: WordList, length: int) -> str:
    """A word of exactly `length` letters, or several joined and cut."""
    joined = ""
    for _ in range(WORD_TRIES):
        word = words.draw(rng).lower()
        if not (word.isascii() and word.isalpha()):
            continue
        if len(word) == length:
            return word
        joined = (joined + word)[:length]
    return joined or "x" * length


def _draw(path: str, text: str, probe: Probe) -> npt.NDArray[np.float64]:
    """Coverage by ink in [0, 1], (H, W), with the margin around it."""
    trial = ImageFont.truetype(path, 200, layout_engine=ImageFont.Layout.BASIC)
    _, top, _, bottom = trial.getbbox("H", anchor="ls")
    size = 200 * FINE * probe.letter_height / (bottom - top)
    core, _ = ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC).getmask2(text, mode="L")
    mask = _tight(np.frombuffer(bytes(core), np.uint8).reshape(core.size[1], core.size[0]))
    if probe.rotation:
        mask = _tight(_turn(mask, probe.rotation))
    pad = round(MARGIN * probe.letter_height) * FINE
    right, below = -mask.shape[1] % FINE, -mask.shape[0] % FINE
    mask = np.pad(mask, ((pad, pad + below), (pad, pad + right)))
    height, width = mask.shape[0] // FINE, mask.shape[1] // FINE
    return np.asarray(mask.reshape(height, FINE, width, FINE).mean(axis=(1, 3)) / 255.0, dtype=np.float64)


def _turn(mask: npt.NDArray[np.uint8], degrees: float) -> npt.NDArray[np.uint8]:
    height, width = mask.shape
    side = int(np.ceil(np.hypot(height, width))) + 2
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    matrix[:, 2] += (side - width) / 2, (side - height) / 2
    return np.asarray(cv2.warpAffine(mask, matrix, (side, side)), np.uint8)


def _tight(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    rows, columns = np.flatnonzero(mask.max(axis=1) > 32), np.flatnonzero(mask.max(axis=0) > 32)
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
