"""Words marked in a photograph, as boxes or quadrilaterals from a detector or a person, and their crops."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal
from itertools import takewhile
from numbers import Real
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from str_app.datasets.sample import DataError
from str_app.datasets.text_files import parse_json, read_lines
from str_app.errors import ImageError, StrAppError
from str_app.inputs.images import DEFAULT_LIMITS, ImageLimits, check_size
from str_app.reading import Box

# A detector's corner may lie outside the photograph, but not by more than this share of its sides.
_OUTSIDE = 0.5
# Quadrilaterals with a shorter side, in pixels, or a smaller sine of an angle cannot be flattened in float32.
_SHORTEST, _SHARPEST = 0.01, 1e-4


@dataclass(frozen=True)
class Region:
    """Where a word stands in a photograph.

    Attributes:
        corners: (x, y) in pixels, clockwise, from the corner where the word's first letter has its top left.
        upright: a box along the sides of the photograph: its pixels are taken as they are.
    """

    corners: tuple[tuple[float, float], ...]
    upright: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the crop: the longer one of each two opposite sides."""
        if self.upright:
            (x0, y0), _, (x1, y1), _ = self.corners
            return round(y1 - y0), round(x1 - x0)
        top, right, bottom, left = self._sides()
        return max(1, round(max(left, right))), max(1, round(max(top, bottom)))

    def _sides(self) -> list[float]:
        points = np.array(self.corners)
        return [float(side) for side in np.linalg.norm(np.roll(points, -1, axis=0) - points, axis=1)]


def parse_region(value: Any) -> Region:
    """A region from what a detector gives: `[x0, y0, x1, y1]`, `[x0, y0, …, x3, y3]` or `[[x0, y0], …, [x3, y3]]`.

    Corners that run counter-clockwise are taken in the other direction: nobody photographs mirrored words.

    Raises:
        ImageError: `bad_region`, with what is wrong.
    """
    try:
        # NumPy takes texts and truth values for numbers.
        if not all(isinstance(each, Real | Decimal) and not isinstance(each, bool | np.bool_) for each in _flat(value)):
            raise TypeError
        numbers = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise _bad("give 4 numbers, 8 numbers or 4 pairs of numbers") from None
    if numbers.shape not in ((4,), (8,), (4, 2)):
        shape = f", not an array of shape {numbers.shape}" if numbers.shape else ""
        raise _bad(f"give 4 numbers, 8 numbers or 4 pairs of numbers{shape}")
    if not np.isfinite(numbers).all() or np.abs(numbers).max() > 1e6:
        raise _bad("its coordinates cannot be pixels of a photograph")
    if numbers.shape == (4,):
        x0, y0, x1, y1 = (float(number) for number in numbers)
        if x1 <= x0 or y1 <= y0:
            raise _bad("a box is x0, y0, x1, y1 with x0 < x1 and y0 < y1")
        return Region(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), upright=True)
    points = numbers.reshape(4, 2)
    sides = np.roll(points, -1, axis=0) - points
    following = np.roll(sides, -1, axis=0)
    turns = sides[:, 0] * following[:, 1] - sides[:, 1] * following[:, 0]  # > 0: clockwise, since y runs downwards
    if (turns < 0).all():
        points = points[[0, 3, 2, 1]]
    elif not (turns > 0).all():
        raise _bad("its four corners do not form a convex quadrilateral; give them in order around the word")
    lengths = np.linalg.norm(sides, axis=1)
    if lengths.min() < _SHORTEST or np.abs(turns / (lengths * np.roll(lengths, -1))).min() < _SHARPEST:
        raise _bad("it is almost a triangle: two of its corners coincide, or three are on a line")
    return Region(tuple((float(x), float(y)) for x, y in points))


def crops_of_regions(
    photo: npt.NDArray[np.uint8], regions: Sequence[Any], limits: ImageLimits = DEFAULT_LIMITS
) -> Iterator[tuple[Region, npt.NDArray[np.uint8]] | ImageError]:
    """The crop of each region, flattened where it is seen at an angle; an error in place of one that has none.

    Args:
        photo: uint8 (H, W, 3) RGB.
        regions: see `parse_region`.
        limits: of each crop; all crops together may have `limits.max_pixels`.

    Yields:
        The region, cut off at the photograph's edges where it is a box, and its pixels, uint8 (h, w, 3).
    """
    budget = limits.max_pixels
    for number, value in enumerate(regions, 1):
        try:
            region = _within(parse_region(value), photo.shape[0], photo.shape[1])
            height, width = region.size
            check_size(width, height, limits)
            budget -= height * width
            if budget < 0:
                raise ImageError("too_many_pixels", f"the regions together have over {limits.max_pixels:,} pixels")
            yield region, _crop(photo, region)
        except ImageError as error:
            yield ImageError(error.code, f"region {number} of {len(regions)}: {error.message}")


def to_photo(box: Box, region: Region, photo_size: tuple[int, int]) -> Box:
    """A box of a region's crop → the upright box around it in the photograph of that height and width."""
    x0, y0, x1, y1 = box
    if region.upright:
        left, top = region.corners[0]
        return x0 + left, y0 + top, x1 + left, y1 + top
    corners = np.array([[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]], dtype=np.float64)
    points = cv2.perspectiveTransform(corners, np.linalg.inv(_flattening(region, 0.0)))[0]
    edges = np.clip(points, 0.0, (photo_size[1], photo_size[0]))
    return float(edges[:, 0].min()), float(edges[:, 1].min()), float(edges[:, 0].max()), float(edges[:, 1].max())


def read_regions_file(path: Path) -> list[Any]:
    """The regions of a file: a JSON array, or one region a line as comma-separated numbers (as in IC15's files).

    A line has 8 numbers if its first eight fields all are numbers, else 4. What follows them, such as a transcription,
    is left out.

    Raises:
        StrAppError: it is neither, not UTF-8 or UTF-16, or has no region.
    """
    try:
        lines = read_lines(path)
    except DataError as error:
        raise StrAppError(str(error)) from None
    text = "\n".join(lines)
    if text.lstrip().startswith("["):
        try:
            found = list(parse_json(text))
        except ValueError as error:
            raise StrAppError(f"{path}: not valid JSON ({error})") from None
    else:
        found = _regions_of_lines(path, lines)
    if not found:
        raise StrAppError(f"{path}: no region in this file: give a JSON array, or 4 or 8 numbers a line")
    return found


def _regions_of_lines(path: Path, lines: Iterable[str]) -> list[Any]:
    found: list[Any] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = line.split(",")
        leading = list(takewhile(_is_number, fields[:8]))
        incomplete = len(leading) == len(fields) and len(fields) in (6, 7)
        mistyped = 4 < len(leading) < 8 < len(fields)  # a quadrilateral, rather than a box and its transcription
        if len(leading) < 4 or incomplete or mistyped:
            raise StrAppError(f"{path} line {number}: not 4 or 8 numbers with commas between them")
        found.append([float(field) for field in leading[: 8 if len(leading) == 8 else 4]])
    return found


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def as_regions(value: Any) -> list[Any]:
    """The regions of a list or array of them, each yet to be parsed.

    Raises:
        StrAppError: it is not a list, or it is a single region's numbers.
    """
    if isinstance(value, str | bytes | Mapping | Set) or not isinstance(value, Iterable):
        raise StrAppError(f"regions is a {type(value).__name__}: give a list of regions, such as [[x0, y0, x1, y1]]")
    regions = list(value)
    if regions and all(isinstance(each, Real | Decimal) for each in regions):
        raise StrAppError("regions is a list of numbers: give a list of regions, such as [[x0, y0, x1, y1]]")
    return regions


def _flat(value: Any) -> Iterable[Any]:
    return np.asarray(value, dtype=object).ravel().tolist()


def _bad(what: str) -> ImageError:
    return ImageError("bad_region", what)


def _within(region: Region, height: int, width: int) -> Region:
    """A box cut off at the photograph's edges; a quadrilateral as it is, if it lies about inside."""
    points = np.array(region.corners)
    low, high = points.min(axis=0), points.max(axis=0)
    if (high <= 0).any() or low[0] >= width or low[1] >= height:
        raise _bad(f"it lies outside the photograph of {width}×{height} pixels")
    if region.upright:
        x0, y0 = (float(np.floor(max(edge, 0.0))) for edge in low)
        x1, y1 = (float(np.ceil(min(edge, side))) for edge, side in zip(high, (width, height), strict=True))
        return Region(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), upright=True)
    margin = _OUTSIDE * np.array([width, height])
    if (low < -margin).any() or (high > np.array([width, height]) + margin).any():
        raise _bad(f"it reaches far outside the photograph of {width}×{height} pixels")
    return region


def _crop(photo: npt.NDArray[np.uint8], region: Region) -> npt.NDArray[np.uint8]:
    if region.upright:
        (x0, y0), _, (x1, y1), _ = region.corners
        return np.ascontiguousarray(photo[int(y0) : int(y1), int(x0) : int(x1)])
    height, width = region.size
    # OpenCV's whole numbers are the centres of pixels, ours are their edges.
    flat = cv2.warpPerspective(
        photo, _flattening(region, 0.5), (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(flat, dtype=np.uint8)


def _flattening(region: Region, centre: float) -> npt.NDArray[np.float64]:
    """Homography, (3, 3), from the photograph to the crop; `centre` of a pixel is taken off the coordinates of both."""
    height, width = region.size
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
    matrix = cv2.getPerspectiveTransform(
        np.array(region.corners, dtype=np.float32) - np.float32(centre), corners - np.float32(centre)
    )
    return np.asarray(matrix, dtype=np.float64)
