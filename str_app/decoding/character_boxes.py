"""Boxes of characters, from the attention."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from str_app.reading import Box

# A uniform stroke of half-width w has a standard deviation of w / √3.
_HALF_WIDTH_OF_SPREAD = 3.0**0.5
# A letter alone in its crop is about half as wide as the line is high.
_HALF_WIDTH_OF_HEIGHT = 0.25


def character_boxes(
    attention: npt.NDArray[np.floating],
    covered: int,
    canvas_size: tuple[int, int],
    image_size: tuple[int, int],
) -> list[Box]:
    """Boxes of characters in pixels of the image, left to right, without overlap.

    Each character is centred on the mean of its attention and reaches half-way to its neighbours; the first and the
    last as far outwards as inwards, a single one as far as its attention spreads. Boxes are as high as the image:
    attention tells where along the line a character is, not how tall it is.

    Args:
        attention: (L, H', W'), non-negative: one map over the canvas for each of L characters.
        covered: canvas columns that the crop covers.
        canvas_size: height and width of the canvas in pixels.
        image_size: height and width of the image the boxes are for.

    Returns:
        L boxes x0, y0, x1, y1 with 0 ≤ x0 < x1 ≤ image width.
    """
    count = len(attention)
    if count == 0:
        return []
    canvas_height, canvas_width = canvas_size
    image_height, image_width = image_size
    columns = attention.astype(np.float64).sum(axis=1)  # (L, W')
    columns /= np.maximum(columns.sum(axis=1, keepdims=True), 1e-12)
    positions = (np.arange(columns.shape[1]) + 0.5) * canvas_width / columns.shape[1]
    centres = np.clip(columns @ positions, 0.0, covered)
    if count == 1:
        spread = float(np.sqrt(columns[0] @ (positions - centres[0]) ** 2))
        reach = max(_HALF_WIDTH_OF_SPREAD * spread, _HALF_WIDTH_OF_HEIGHT * canvas_height)
        edges = np.array([centres[0] - reach, centres[0] + reach])
    else:
        centres = _increasing(centres, covered)
        between = (centres[:-1] + centres[1:]) / 2.0
        edges = np.concatenate([[2.0 * centres[0] - between[0]], between, [2.0 * centres[-1] - between[-1]]])
    edges = np.clip(edges, 0.0, covered) * image_width / covered
    return [(float(left), 0.0, float(right), float(image_height)) for left, right in pairwise(edges)]


def _increasing(centres: npt.NDArray[np.float64], covered: int) -> npt.NDArray[np.float64]:
    """The nearest ascending centres, at least a quarter of a mean character apart."""
    from_left = np.maximum.accumulate(centres)
    from_right = np.minimum.accumulate(centres[::-1])[::-1]
    gap = covered / (4.0 * len(centres))
    steps = gap * np.arange(len(centres))
    # Monotone after subtracting the least distances means at least that far apart.
    apart = np.maximum.accumulate((from_left + from_right) / 2.0 - steps) + steps
    return np.asarray(np.minimum(apart, covered - gap * np.arange(len(centres), 0, -1)))
