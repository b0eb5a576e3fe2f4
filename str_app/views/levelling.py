"""Words that rise, fall or bend across their crop, levelled: signs seen from the side, lettering on an arc."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from str_app.models.preprocessing import Preprocessing, pad_right
from str_app.policy import DEFAULT_POLICY, SearchPolicy


class Line(NamedTuple):
    """The middle of a line of characters: row = slope · (x − middle) + bend · (x − middle)² + a constant.

    Attributes:
        slope: rows per column, positive where the line falls to the right.
        bend: rows per squared column, positive where the ends lie lower than the middle.
        middle: column.
    """

    slope: float = 0.0
    bend: float = 0.0
    middle: float = 0.0


def levelled_canvas(
    canvas: npt.NDArray[np.uint8],
    covered: int,
    attention: npt.NDArray[np.floating],
    preprocessing: Preprocessing,
    policy: SearchPolicy = DEFAULT_POLICY,
) -> tuple[npt.NDArray[np.uint8], int]:
    """A canvas whose line of characters is level, as wide as the widest, and the columns that its crop covers.

    Args:
        canvas: uint8 (height, W, 3).
        covered: columns that the crop covers.
        attention: (L, H', W'), of each character read on this canvas.
        preprocessing: of the model.
        policy: bounds of slopes and bends.
    """
    line = fit_line(attention, canvas.shape[:2], policy)
    levelled, levelled_covered = preprocessing(level(canvas[:, :covered], line, policy))
    return pad_right(levelled, preprocessing.width), levelled_covered


def fit_line(
    attention: npt.NDArray[np.floating], canvas_size: tuple[int, int], policy: SearchPolicy = DEFAULT_POLICY
) -> Line:
    """The least-squares line through the centres of the characters' attention; level for fewer than two characters.

    Args:
        attention: (L, H', W'), non-negative: one map over the canvas for each of L characters.
        canvas_size: height and width of the canvas in pixels.
        policy: `steepest`, `least_bend`, `fewest_bent` and `stiffness`.
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
    slope = float(x @ y) / max(float(x @ x), 1e-6)
    bend = 0.0
    if len(attention) >= policy.fewest_bent:
        half_length = max(1.0, float(np.ptp(x)) / 2)
        u = x / half_length
        terms = np.stack([np.ones_like(u), u, u * u - (u * u).mean()], axis=1)
        penalty = [0.0, 0.0, policy.stiffness**0.5]
        _, tilt, sag = np.linalg.lstsq(np.vstack([terms, penalty]), np.append(y, 0.0), rcond=None)[0].tolist()
        if abs(sag) >= policy.least_bend * height:
            slope, bend = tilt / half_length, sag / half_length**2
    return Line(max(-policy.steepest, min(policy.steepest, slope)), bend, middle)


def level(crop: npt.NDArray[np.uint8], line: Line, policy: SearchPolicy = DEFAULT_POLICY) -> npt.NDArray[np.uint8]:
    """Shear a crop (H, W, 3) vertically and straighten it until its line is level, and cut it to the line: (h, W, 3).

    Verticals stay vertical on a straight line, as on a sign seen from the side; along a bend they are turned upright,
    as on an arc. The line is assumed to touch the crop's edges, so the result has the crop's height less what the line
    rises or falls, and some room.
    """
    height, width = crop.shape[:2]
    if line.bend == 0:
        rows, shift = level_rows(height, line.slope * width, policy)
        shear = np.array([[1.0, 0.0, 0.0], [-line.slope, 1.0, shift]])
        size = (width, max(4, round(rows)))
        levelled = cv2.warpAffine(crop, shear, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(levelled, dtype=np.uint8)
    from_middle = np.arange(width) + 0.5 - line.middle
    course = line.slope * from_middle + line.bend * from_middle**2
    rows = max(4, round(_line_height(height, float(np.ptp(course)), policy)))
    offset = np.arange(rows)[:, None] - (rows - 1) / 2
    x = np.arange(width) - 2 * line.bend * from_middle * offset
    y = (height - 1) / 2 + course - (course.max() + course.min()) / 2 + offset
    levelled = cv2.remap(
        crop, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(levelled, dtype=np.uint8)


def level_rows(height: float, fall: float, policy: SearchPolicy = DEFAULT_POLICY) -> tuple[float, float]:
    """Height of a straight line that falls by so many rows, and how far down its shear moves: the middle stays it."""
    rows = _line_height(height, abs(fall), policy)
    return rows, (rows - height + fall) / 2


def _line_height(height: float, rise: float, policy: SearchPolicy) -> float:
    """Height of a line that rises or falls by so many rows within a crop, with room around it."""
    return policy.room * max(height - rise, policy.thinnest * height)
