"""Lines too long for the widest canvas, read in overlapping parts that are joined where both say the same."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import partial
from itertools import product

import numpy as np
import numpy.typing as npt

from str_app.policy import DEFAULT_POLICY, SearchPolicy
from str_app.reading import Box, Character, Reading
from str_app.views.canvas import Span

MAX_PARTS = 3  # longer lines have squeezed parts


def parts_of(
    crop_size: tuple[int, int], canvas_size: tuple[int, int], policy: SearchPolicy = DEFAULT_POLICY
) -> list[Span]:
    """The parts of a crop, left to right; none where the crop is read as a whole only.

    Args:
        crop_size: height and width in pixels.
        canvas_size: of the widest canvas.
        policy: `squeeze` and `overlap`.
    """
    (height, width), (canvas_height, widest) = crop_size, canvas_size
    columns = width * canvas_height / height
    if columns <= policy.squeeze * widest:
        return []
    overlap = policy.overlap
    count = min(MAX_PARTS, math.ceil((columns - overlap) / (widest - overlap)))
    part_columns = (columns + (count - 1) * overlap) / count
    scale = width / columns
    lefts = [index * (part_columns - overlap) * scale for index in range(count)]
    return [(round(left), min(width, round(left + part_columns * scale))) for left in lefts]


def whole_or_parts(
    whole: Reading,
    parts: Sequence[Reading],
    spans: Sequence[Span],
    height: int,
    policy: SearchPolicy = DEFAULT_POLICY,
) -> Reading:
    """The more confident of a line's reading as a whole and that of its joined parts.

    Args:
        whole: boxes in pixels of the crop.
        parts: boxes in pixels of each part.
        spans: of the parts.
        height: of the crop.
        policy: `near` and `least_joined`.
    """
    line = joined(parts, spans, height, policy)
    return line if len(line.text) >= policy.least_joined and line.confidence > whole.confidence else whole


def joined(
    parts: Sequence[Reading], spans: Sequence[Span], height: int, policy: SearchPolicy = DEFAULT_POLICY
) -> Reading:
    """One reading of neighbouring parts, boxes in pixels of the crop.

    Neighbours are joined within the longest run of characters that both saw in the same place, at the character nearest
    to the middle of their overlap; where there is no such run, in the middle. The confidence is the product of the
    characters'.

    Args:
        parts, spans, height, policy: as of `whole_or_parts`.
    """
    line: list[_Placed] = []
    for part, (reading, (left, _)) in enumerate(zip(parts, spans, strict=True)):
        moved = reading.with_boxes(partial(_moved_right, by=left))
        further = [(character, part, index) for index, character in enumerate(moved.characters)]
        line = _join(line, further, (spans[part - 1][1] + left) / 2, policy.near * height) if part else further
    characters = tuple(character for character, _, _ in line)
    return Reading(
        "".join(character.text for character in characters),
        math.prod(character.confidence for character in characters),
        characters,
        _attention(line, parts, spans),
    )


def _moved_right(box: Box, by: float) -> Box:
    x0, y0, x1, y1 = box
    return x0 + by, y0, x1 + by, y1


_Placed = tuple[Character, int, int]  # a character, its part, and its index there


def _join(left: Sequence[_Placed], right: Sequence[_Placed], middle: float, near: float) -> list[_Placed]:
    same = {
        (i, j)
        for (i, one), (j, two) in product(enumerate(left), enumerate(right))
        if one[0].text.lower() == two[0].text.lower() and abs(_centre(one) - _centre(two)) <= near
    }
    if not same:
        before = [placed for placed in left if _centre(placed) < middle]
        return [*before, *(placed for placed in right if _centre(placed) >= middle)]
    longest = max((_run(same, pair) for pair in same), key=len)
    i, j = min(longest, key=lambda pair: abs(_centre(left[pair[0]]) + _centre(right[pair[1]]) - 2 * middle))
    return [*left[: i + 1], *right[j + 1 :]]


def _run(same: Collection[tuple[int, int]], pair: tuple[int, int]) -> list[tuple[int, int]]:
    """The pair and those that follow it one by one in both: this keeps the two o's of a word apart."""
    run = [pair]
    while (following := (run[-1][0] + 1, run[-1][1] + 1)) in same:
        run.append(following)
    return run


def _centre(placed: _Placed) -> float:
    left, _, right, _ = placed[0].box
    return (left + right) / 2


def _attention(
    line: Sequence[_Placed], parts: Sequence[Reading], spans: Sequence[Span]
) -> npt.NDArray[np.float32] | None:
    """Maps of the line's characters, and of the last part's end, over the whole crop; None where a part has none."""
    maps = [part.attention for part in parts if part.attention is not None]
    if len(maps) < len(parts):
        return None
    covered = [
        part_maps[..., : max(1, round(part.covered * part_maps.shape[-1]))]
        for part_maps, part in zip(maps, parts, strict=True)
    ]
    scale = covered[0].shape[-1] / (spans[0][1] - spans[0][0])  # columns per pixel
    whole = np.zeros((len(line) + 1, covered[0].shape[1], round(scale * spans[-1][1])), np.float32)
    last = len(parts) - 1
    sources = [*((part, index) for _, part, index in line), (last, len(parts[last].text))]
    for row, (part, index) in enumerate(sources):
        first = min(round(scale * spans[part][0]), whole.shape[2] - 1)
        columns = min(covered[part].shape[-1], whole.shape[2] - first)
        whole[row, :, first : first + columns] = covered[part][index, :, :columns]
    return whole
