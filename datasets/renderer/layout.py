"""Typesets a word in the text plane: spacing, small capitals, bouncing letters, neighbouring words, rules."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from str_app.datasets.renderer.glyphs import CAP_HEIGHT, Face, Glyph
from str_app.datasets.renderer.style import Style

MARGIN = 44  # pixels around the word, for effects and neighbours
LONGEST_LINE = 1600  # pixels; letter spacing is reduced to stay within


class Line(NamedTuple):
    """A word in the text plane.

    Attributes:
        mask: uint8 (H, W), coverage of the word and of what has the same ink: neighbours, rules.
        word: uint8 (H, W), coverage of the word alone.
        boxes: float32 (n, 4), tight box of each character: x0, y0, x1, y1 in plane pixels.
        baseline: y of the baseline.
    """

    mask: npt.NDArray[np.uint8]
    word: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float32]
    baseline: float


class Placed(NamedTuple):
    """A glyph mask and its top left corner in plane pixels."""

    mask: npt.NDArray[np.uint8]
    x: int
    y: int


def set_word(
    rng: np.random.Generator, face: Face, text: str, neighbours: list[str], style: Style, stacked: bool = False
) -> Line:
    """Typeset `text` with random spacing.

    Args:
        rng: chooses spacing and variations.
        face: the font.
        text: the word.
        neighbours: words to put above, below, left or right of it.
        style: frequency of each effect.
        stacked: letters one below another, then rotated 90° counter-clockwise, so that the first is on the left.
    """
    if stacked:
        placed = _place_stacked(face, text, float(rng.uniform(0.05, 0.35)) * CAP_HEIGHT)
    else:
        placed = place(face, text, _tracking(rng, face, text, style), *_sizes_and_offsets(rng, text, style))
    left = min(p.x for p in placed)
    top = min(min(p.y for p in placed), -CAP_HEIGHT)
    right = max(p.x + p.mask.shape[1] for p in placed)
    bottom = max(max(p.y + p.mask.shape[0] for p in placed), 0)
    shift_x, shift_y = MARGIN - left, MARGIN - top
    word = np.zeros((bottom - top + 2 * MARGIN, right - left + 2 * MARGIN), np.uint8)
    boxes = np.empty((len(text), 4), np.float32)
    for i, (mask, x, y) in enumerate(placed):
        paste(word, mask, x + shift_x, y + shift_y)
        boxes[i] = (x + shift_x, y + shift_y, x + shift_x + mask.shape[1], y + shift_y + mask.shape[0])
    mask = word
    if neighbours:
        mask = word.copy()
        _set_neighbours(rng, face, mask, boxes, float(shift_y), neighbours)
    return Line(mask, word, boxes, float(shift_y))


def _tracking(rng: np.random.Generator, face: Face, text: str, style: Style) -> float:
    """Extra pixels between letters."""
    if rng.random() < style.wide_spacing:
        tracking = rng.uniform(0.06, 0.3) if rng.random() < 0.65 else rng.uniform(0.3, 1.0)
    elif rng.random() < 0.85:
        tracking = rng.normal(0.01, 0.025)
    else:
        tracking = rng.uniform(-0.10, -0.03)
    natural = sum(face.glyph(char).advance for char in text)
    max_tracking = (LONGEST_LINE - natural) / max(1, len(text))
    return float(min(tracking * CAP_HEIGHT, max(0.0, max_tracking)))


def _sizes_and_offsets(rng: np.random.Generator, text: str, style: Style) -> tuple[list[float], list[float]]:
    """Size factor, and offset from the baseline in pixels, of each letter."""
    n = len(text)
    sizes, offsets = [1.0] * n, [0.0] * n
    if rng.random() >= style.bounce:
        return sizes, offsets
    kind = rng.random()
    if kind < 0.45 and n > 2 and text.isupper():  # capitals and small capitals
        sizes = [1.0] + [float(rng.uniform(0.68, 0.85))] * (n - 1)
    elif kind < 0.8:  # bouncing letters
        max_offset = rng.uniform(0.03, 0.14) * CAP_HEIGHT
        offsets = [float(value) for value in rng.uniform(-max_offset, max_offset, n)]
        sizes = [float(value) for value in rng.uniform(0.85, 1.0, n)]
    elif text[:1] in "$#+" and n > 1:  # small currency sign, raised
        sizes[0] = float(rng.uniform(0.5, 0.8))
        offsets[0] = -CAP_HEIGHT * (1 - sizes[0])
    return sizes, offsets


def place(face: Face, text: str, tracking: float, sizes: list[float], offsets: list[float]) -> list[Placed]:
    """The glyphs of `text` on a baseline at y = 0, with the pen starting at x = 0."""
    placed: list[Placed] = []
    pen = 0.0
    for i, char in enumerate(text):
        glyph = face.glyph(char)
        if sizes[i] < 0.999:
            glyph = _shrunk(glyph, sizes[i])
        if i:
            pen += face.kerning(text[i - 1], char)
        x = round(pen + glyph.left)
        placed.append(Placed(glyph.mask, x, round(glyph.top + offsets[i])))
        # With tight spacing letters may touch, but their order must not change.
        pen = max(pen + glyph.advance + tracking, x + 0.3 * glyph.mask.shape[1])
    return placed


def _place_stacked(face: Face, text: str, gap: float) -> list[Placed]:
    placed: list[Placed] = []
    pen = 0.0
    for char in text:
        mask = np.ascontiguousarray(np.rot90(face.glyph(char).mask))
        placed.append(Placed(mask, round(pen), round((-CAP_HEIGHT - mask.shape[0]) / 2)))
        pen += mask.shape[1] + gap
    return placed


def _shrunk(glyph: Glyph, size: float) -> Glyph:
    height, width = glyph.mask.shape
    mask = cv2.resize(
        glyph.mask, (max(1, round(width * size)), max(1, round(height * size))), interpolation=cv2.INTER_AREA
    )
    return Glyph(np.asarray(mask, np.uint8), round(glyph.left * size), round(glyph.top * size), glyph.advance * size)


def paste(plane: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], x: int, y: int) -> None:
    """Paste the part of `mask` that fits into `plane` at (x, y), by maximum."""
    height, width = plane.shape
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + mask.shape[1], width), min(y + mask.shape[0], height)
    if x0 < x1 and y0 < y1:
        target = plane[y0:y1, x0:x1]
        np.maximum(target, mask[y0 - y : y1 - y, x0 - x : x1 - x], out=target)


def _set_neighbours(
    rng: np.random.Generator,
    face: Face,
    plane: npt.NDArray[np.uint8],
    boxes: npt.NDArray[np.float32],
    baseline: float,
    neighbours: list[str],
) -> None:
    """Put other words around the word: lines above and below, words left and right."""
    left, top, right, bottom = boxes[:, 0].min(), boxes[:, 1].min(), boxes[:, 2].max(), boxes[:, 3].max()
    sides = ["above", "below", "left", "right"]
    for text, side in zip(neighbours, rng.permutation(sides), strict=False):
        placed = place(face, text, 0.0, [1.0] * len(text), [0.0] * len(text))
        x0, x1 = min(p.x for p in placed), max(p.x + p.mask.shape[1] for p in placed)
        y0, y1 = min(p.y for p in placed), max(p.y + p.mask.shape[0] for p in placed)
        gap = rng.uniform(0.12, 0.6) * CAP_HEIGHT
        x = rng.uniform(left - 0.5 * (x1 - x0), max(left, right - 0.5 * (x1 - x0))) - x0
        y = baseline
        if side == "above":
            y = top - gap - y1
        elif side == "below":
            y = bottom + gap - y0
        elif side == "left":
            x = left - max(gap, 0.3 * CAP_HEIGHT) - x1
        else:
            x = right + max(gap, 0.3 * CAP_HEIGHT) - x0
        for p in placed:
            paste(plane, p.mask, round(p.x + x), round(p.y + y))


def add_rule(rng: np.random.Generator, line: Line) -> Line:
    """The line with an underline, a line above or a box around it, in the same ink."""
    mask = line.mask.copy()
    left, top = line.boxes[:, :2].min(axis=0)
    right, bottom = line.boxes[:, 2:].max(axis=0)
    thick = int(rng.integers(1, 6))
    distance = rng.uniform(0.12, 0.5) * CAP_HEIGHT
    x0, x1 = round(float(left - distance)), round(float(right + distance))
    y0, y1 = round(float(top - distance)), round(float(bottom + distance))
    kind = rng.random()
    if kind < 0.4:
        cv2.line(mask, (x0, y1), (x1, y1), 255, thick)
    elif kind < 0.6:
        cv2.line(mask, (x0, y0), (x1, y0), 255, thick)
    else:
        cv2.rectangle(mask, (x0, y0), (x1, y1), 255, thick)
    return line._replace(mask=mask)
