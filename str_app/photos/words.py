"""Lines of text taken apart into words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from str_app.photos.detector import Quad

# Of a word within its line: left, right, top and bottom as shares of the line's sides.
WordBox = tuple[float, float, float, float]


class WordSeparator(Protocol):
    """Finds the words in the crops of lines. Safe to share among threads."""

    def words(self, lines: Sequence[npt.NDArray[np.uint8]]) -> list[list[WordBox]]:
        """For each line, uint8 (H, W, 3) RGB, its words from left to right; never none at all."""
        ...


def part_of(quad: Quad, box: WordBox) -> Quad:
    """The part of a line's quadrilateral that a word takes."""
    top_left, top_right, bottom_right, bottom_left = quad.astype(np.float64)
    left, right, top, bottom = box

    def at(across: float, down: float) -> npt.NDArray[np.float64]:
        upper, lower = top_left + across * (top_right - top_left), bottom_left + across * (bottom_right - bottom_left)
        return np.asarray(upper + down * (lower - upper))

    return np.stack([at(left, top), at(right, top), at(right, bottom), at(left, bottom)]).astype(np.float32)
