"""Lines of text taken apart into words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from str_app.photos.detector import Quad

Span = tuple[float, float]  # of a word within its line, as shares of the line's length


class WordSeparator(Protocol):
    """Finds the words in the crops of lines. Safe to share among threads."""

    def spans(self, lines: Sequence[npt.NDArray[np.uint8]]) -> list[list[Span]]:
        """For each line, uint8 (H, W, 3) RGB, the spans of its words from left to right; never none at all."""
        ...


def part_of(quad: Quad, span: Span) -> Quad:
    """The part of a line's quadrilateral between two shares of its length."""
    top_left, top_right, bottom_right, bottom_left = quad
    start, end = np.float32(span[0]), np.float32(span[1])
    top, bottom = top_right - top_left, bottom_right - bottom_left
    corners = (top_left + start * top, top_left + end * top, bottom_left + end * bottom, bottom_left + start * bottom)
    return np.stack(corners).astype(np.float32)
