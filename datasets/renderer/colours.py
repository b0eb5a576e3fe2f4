"""Colours of letters and background with a chosen difference in luma."""

from __future__ import annotations

import colorsys
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Colour = npt.NDArray[np.float32]  # (3,), RGB, 0 to 255
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class Palette(NamedTuple):
    """Colours of one crop.

    Attributes:
        ink: of the letters.
        background: behind the letters.
        second: for outline, depth and frame.
        contrast: difference in luma between ink and background, 0 to 255.
    """

    ink: Colour
    background: Colour
    second: Colour
    contrast: float


def choose_palette(rng: np.random.Generator) -> Palette:
    """A random palette: mostly high contrast, sometimes hardly legible; 55 % are light on dark."""
    kind = rng.random()
    if kind < 0.03:
        contrast = rng.uniform(20, 35)
    elif kind < 0.13:
        contrast = rng.uniform(32, 65)
    else:
        contrast = 58 + 195 * rng.beta(1.4, 1.4)
    kind = rng.random()
    if kind < 0.22:  # white sign or white letters
        high = rng.uniform(max(225, contrast), 255)
        low = high - contrast
    elif kind < 0.42:  # night, shade, black letters
        low = rng.uniform(0, min(45, 255 - contrast))
        high = low + contrast
    else:
        low = rng.uniform(0, 255 - contrast)
        high = low + contrast
    ink_luma, background_luma = (high, low) if rng.random() < 0.55 else (low, high)
    ink, background = (
        colour(luma, hue, _reduced_for_brightness(luma, hue, _saturation(rng, grey)))
        for luma, hue, grey in ((ink_luma, _hue(rng), 0.36), (background_luma, _hue(rng), 0.22))
    )
    if rng.random() < 0.5:  # the second colour is a darker or lighter shade of the background
        second = np.clip(background * rng.uniform(0.3, 1.6) + rng.uniform(-15, 15), 0, 255).astype(np.float32)
    else:
        second = colour(float(rng.uniform(0, 255)), _hue(rng), _saturation(rng, 0.4))
    return Palette(ink, background, second, float(contrast))


def palette_on(rng: np.random.Generator, background: Colour) -> Palette:
    """A random palette for letters on a surface of the given colour: mostly high contrast, sometimes hardly legible."""
    luma = float(background @ LUMA)
    lighter = rng.random() < (0.85 if luma < 110 else 0.5 if luma < 150 else 0.12)
    room = 250 - luma if lighter else luma - 5
    if room < 60:
        lighter, room = not lighter, 255 - room
    contrast = rng.uniform(22, 60) if rng.random() < 0.12 else rng.uniform(60, max(61, room))
    ink_luma = float(np.clip(luma + (contrast if lighter else -contrast), 3, 252))
    hue = _hue(rng)
    ink = colour(ink_luma, hue, _reduced_for_brightness(ink_luma, hue, _saturation(rng, 0.4)))
    second = np.clip(background * rng.uniform(0.3, 1.6) + rng.uniform(-15, 15), 0, 255).astype(np.float32)
    return Palette(ink, background, second, abs(ink_luma - luma))


HUES = (0.0, 0.0, 0.01, 0.03, 0.07, 0.10, 0.13, 0.15, 0.40, 0.53, 0.58, 0.60, 0.62, 0.63)


def _hue(rng: np.random.Generator) -> float:
    """A hue in [0, 1): red, yellow and blue far more often than green, violet and pink, as on streets."""
    if rng.random() < 0.14:
        return float(rng.random())
    return float((HUES[int(rng.integers(len(HUES)))] + rng.normal(0, 0.025)) % 1.0)


def _saturation(rng: np.random.Generator, grey_probability: float) -> float:
    return float(rng.uniform(0, 0.12) if rng.random() < grey_probability else rng.beta(2, 1.4))


def _reduced_for_brightness(luma: float, hue: float, saturation: float) -> float:
    """Lower saturation for bright colours, except yellow and orange: pink, mint and violet are rare."""
    if 0.05 < hue < 0.18:
        return saturation
    return saturation * float(np.clip((1.5 if hue > 0.95 or hue < 0.05 else 1.25) - luma / 170, 0.1, 1))


def colour(luma: float, hue: float, saturation: float) -> Colour:
    """RGB of the given luma, 0 to 255. Saturation is reduced if the luma cannot be reached with it."""
    rgb = np.array(colorsys.hsv_to_rgb(hue, saturation, 1.0), np.float32)
    rgb *= luma / float(rgb @ LUMA)
    peak = float(rgb.max())
    if peak > 255:  # mix with grey of the same luma until the strongest channel fits
        keep = (255 - luma) / (peak - luma)
        rgb = luma + keep * (rgb - luma)
    return np.clip(rgb, 0, 255).astype(np.float32)
