"""Words that rise, fall or bend across their crop, laid level: signs seen from aside, lettering on an arc."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

# Steeper lines are lettering on its side, or a guess.
STEEPEST = 1.2
# Of the crop's height; thinner lines are a wrong slope.
THINNEST = 0.3
# Around a line: boxes are often too tight.
ROOM = 1.08
# Glances are too rough to tell a slight bend, or that of fewer characters: of the crop's height, from middle to ends.
LEAST_BEND = 0.05
FEWEST_BENT = 5
# What the square of a bend, in rows, counts beside the squared distances of the characters: bends are drawn to none.
STIFFNESS = 0.5


class Line(NamedTuple):
    """The middle of a line of characters: row = slope · (x − middle) + bend · (x − middle)² + a constant.

    Attributes:
        slope: rows that it falls by a column.
        bend: rows by squared columns; positive where the ends hang lower than the middle.
        middle: column.
    """

    slope: float = 0.0
    bend: float = 0.0
    middle: float = 0.0


def fit_line(attention: npt.NDArray[np.floating], canvas_size: tuple[int, int]) -> Line:
    """The line through the means of the characters' attention, by least squares; level of fewer than two.

    Args:
        attention: (L, H', W'), non-negative: one map over the canvas for each of L characters.
        canvas_size: height and width of the canvas in pixels.
    """
    if len(attention) < 2:
        return Line()
    height, width = canvas_size
    maps = attention.astype(np.float64)
    maps /= np.maximum(maps.sum(axis=(1, 2), keepdims=True), 1e-12)
    rows, columns = maps.shape[1:]
    y = maps.sum(axis=2) @ ((np.arange(rows) + 0.5) * height / rows)
    x = maps.sum(axis=1) @ ((np.arange(columns) + 0.5) * width / columns)
    middle = float(x.mean())
    x -= middle
    falls = float(x @ y) / max(float(x @ x), 1e-6)
    bend = 0.0
    if len(attention) >= FEWEST_BENT:
        reach = max(1.0, float(np.ptp(x)) / 2)
        u = x / reach
        terms = np.stack([np.ones_like(u), u, u * u - (u * u).mean()], axis=1)
        stiff = [0.0, 0.0, STIFFNESS**0.5]
        _, tilt, hang = np.linalg.lstsq(np.vstack([terms, stiff]), np.append(y, 0.0), rcond=None)[0].tolist()
        if abs(hang) >= LEAST_BEND * height:
            falls, bend = tilt / reach, hang / reach**2
    return Line(max(-STEEPEST, min(STEEPEST, falls)), bend, middle)


def level(crop: npt.NDArray[np.uint8], line: Line) -> npt.NDArray[np.uint8]:
    """The crop (H, W, 3) sheared upright and straightened until its line is level, and cut to the line: (h, W, 3).

    Verticals stay vertical on a straight line, as on a sign seen from aside; a bend turns them, as an arc does. The
    line is taken to touch the crop's edges, so what remains of its height is H less what it rises and falls by, and a
    little room.
    """
    height, width = crop.shape[:2]
    if line.bend == 0:
        high = _line_height(height, abs(line.slope) * width)
        down = (high - height + line.slope * width) / 2  # the middle stays the middle
        shear = np.array([[1.0, 0.0, 0.0], [-line.slope, 1.0, down]])
        size = (width, max(4, round(high)))
        levelled = cv2.warpAffine(crop, shear, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(levelled, dtype=np.uint8)
    from_middle = np.arange(width) + 0.5 - line.middle
    course = line.slope * from_middle + line.bend * from_middle**2
    rows = max(4, round(_line_height(height, float(np.ptp(course)))))
    above = np.arange(rows)[:, None] - (rows - 1) / 2
    x = np.arange(width) - 2 * line.bend * from_middle * above
    y = (height - 1) / 2 + course - (course.max() + course.min()) / 2 + above
    levelled = cv2.remap(
        crop, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(levelled, dtype=np.uint8)


def _line_height(height: int, falls: float) -> float:
    """What remains of a crop's height for a line that rises or falls by so many rows, with room around it."""
    return ROOM * max(height - falls, THINNEST * height)
