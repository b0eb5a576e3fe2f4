"""Words that rise or fall across their crop, laid level, as on a sign seen from aside."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

# Steeper lines are lettering on its side, or a guess.
STEEPEST = 1.2
# Of the crop's height; thinner lines are a wrong slope.
THINNEST = 0.3
# Around a line: boxes are often too tight.
ROOM = 1.08


def slope(attention: npt.NDArray[np.floating], canvas_size: tuple[int, int]) -> float:
    """Canvas rows that the line of characters falls by a column; 0 of fewer than two.

    The line is fitted to the means of the characters' attention, by least squares.

    Args:
        attention: (L, H', W'), non-negative: one map over the canvas for each of L characters.
        canvas_size: height and width of the canvas in pixels.
    """
    if len(attention) < 2:
        return 0.0
    height, width = canvas_size
    maps = attention.astype(np.float64)
    maps /= np.maximum(maps.sum(axis=(1, 2), keepdims=True), 1e-12)
    rows, columns = maps.shape[1:]
    y = maps.sum(axis=2) @ ((np.arange(rows) + 0.5) * height / rows)
    x = maps.sum(axis=1) @ ((np.arange(columns) + 0.5) * width / columns)
    x -= x.mean()
    falls = float(x @ y) / max(float(x @ x), 1e-6)
    return max(-STEEPEST, min(STEEPEST, falls))


def level(crop: npt.NDArray[np.uint8], slope: float) -> npt.NDArray[np.uint8]:
    """The crop (H, W, 3) sheared upright until its line is level, and cut to the line: (h, W, 3).

    Verticals stay vertical, as on a sign seen from aside. The line is taken to touch the crop's corners, so what
    remains of its height is H − |slope| · W, and a little room.
    """
    height, width = crop.shape[:2]
    line = ROOM * max(height - abs(slope) * width, THINNEST * height)
    down = (line - height + slope * width) / 2  # the middle stays the middle
    shear = np.array([[1.0, 0.0, 0.0], [-slope, 1.0, down]])
    size = (width, max(4, round(line)))
    levelled = cv2.warpAffine(crop, shear, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(levelled, dtype=np.uint8)
