"""Typesets several lines of several words in the text plane: signs, labels, paragraphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from str_app.datasets.renderer.glyphs import Face
from str_app.datasets.renderer.layout import Placed, paste, place

Align = Literal["left", "centre", "right", "justified"]


class BlockWord(NamedTuple):
    """A word in the plane of its block.

    Attributes:
        text: its characters.
        boxes: float32 (n, 4), tight box of each character: x0, y0, x1, y1.
        baseline: y of its baseline.
        cap_height: of its capitals.
        line: index of its line in the block.
    """

    text: str
    boxes: npt.NDArray[np.float32]
    baseline: float
    cap_height: float
    line: int


class Block(NamedTuple):
    """Lines of text in their own plane.

    Attributes:
        mask: uint8 (H, W), coverage of all words.
        words: in reading order.
        bounds: x0, y0, x1, y1 of the text in the plane; the rest is margin.
    """

    mask: npt.NDArray[np.uint8]
    words: tuple[BlockWord, ...]
    bounds: tuple[float, float, float, float]


@dataclass(frozen=True)
class LineSetting:
    """How one line of a block is set.

    Attributes:
        words: texts, in order.
        face: font at the size of this line.
        cap_height: of that face, in pixels of the plane.
        tracking: pixels between letters besides what the font leaves.
        gaps: pixels between the boxes of neighbouring words, one fewer than words.
    """

    words: tuple[str, ...]
    face: Face
    cap_height: float
    tracking: float
    gaps: tuple[float, ...]


def set_block(
    lines: Sequence[LineSetting], align: Align, leading: float, margin: int, width: float | None = None
) -> Block:
    """Typeset lines below each other.

    Args:
        lines: from top to bottom.
        align: of the lines to each other; `justified` widens the gaps of all lines but the last.
        leading: distance of baselines, in capital heights of the lower line.
        margin: pixels around the text.
        width: of a justified block; by default that of the longest line.
    """
    set_lines = [_set_line(line) for line in lines]
    widths = [words[-1][1] for words in set_lines]
    full = width if width is not None else max(widths)
    placed: list[tuple[Placed, int, int]] = []
    words: list[tuple[str, list[tuple[Placed, int, int]], float, float, int]] = []
    baseline = 0.0
    for i, (line, set_words, line_width) in enumerate(zip(lines, set_lines, widths, strict=True)):
        if i:
            baseline += leading * max(line.cap_height, 0.8 * lines[i - 1].cap_height)
        stretch = 0.0
        offset = {"left": 0.0, "justified": 0.0, "centre": (full - line_width) / 2, "right": full - line_width}[align]
        if align == "justified" and i < len(lines) - 1 and len(line.words) > 1:
            stretch = max(0.0, (full - line_width) / (len(line.words) - 1))
        for k, (glyphs, _, start) in enumerate(set_words):
            x = offset + start + k * stretch
            at = [(glyph, round(glyph.x + x), round(glyph.y + baseline)) for glyph in glyphs]
            placed += at
            words.append((line.words[k], at, baseline, line.cap_height, i))
    left = min(x for _, x, _ in placed)
    top = min(y for _, _, y in placed)
    right = max(x + glyph.mask.shape[1] for glyph, x, _ in placed)
    bottom = max(y + glyph.mask.shape[0] for glyph, _, y in placed)
    dx, dy = margin - left, margin - top
    mask = np.zeros((bottom - top + 2 * margin, right - left + 2 * margin), np.uint8)
    block_words = []
    for text, at, line_baseline, cap_height, i in words:
        boxes = np.empty((len(text), 4), np.float32)
        for k, (glyph, x, y) in enumerate(at):
            height, glyph_width = glyph.mask.shape
            paste(mask, glyph.mask, x + dx, y + dy)
            boxes[k] = (x + dx, y + dy, x + dx + glyph_width, y + dy + height)
        block_words.append(BlockWord(text, boxes, line_baseline + dy, cap_height, i))
    return Block(mask, tuple(block_words), (margin, margin, right + dx, bottom + dy))


def _set_line(line: LineSetting) -> list[tuple[list[Placed], float, float]]:
    """Of each word its glyphs, the end of the line so far and the shift to its place."""
    result = []
    pen = 0.0
    for k, word in enumerate(line.words):
        glyphs = place(line.face, word, line.tracking, [1.0] * len(word), [0.0] * len(word))
        left = min(glyph.x for glyph in glyphs)
        right = max(glyph.x + glyph.mask.shape[1] for glyph in glyphs)
        start = pen - left
        end = pen + right - left
        result.append((glyphs, end, start))
        pen = end + (line.gaps[k] if k < len(line.gaps) else 0.0)
    return result
