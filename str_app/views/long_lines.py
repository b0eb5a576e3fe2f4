"""Lines too long for the widest canvas, read in parts that overlap and are joined where both say the same."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import partial
from itertools import product

import numpy as np
import numpy.typing as npt

from str_app.character_boxes import Box
from str_app.reading import Character, Reading

# A line that would be squeezed by more than this is read in parts as well.
SQUEEZE = 1.5
# Canvas columns that neighbouring parts share: three or four letters.
OVERLAP = 64
# With the whole as many as an image has turns, so that a server knows what may come. Longer lines have squeezed parts.
MOST_PARTS = 3
# Parts mean the same letter if they see it this close, in heights of the crop: attention is off where a part ends.
NEAR = 0.6
# Of fewer letters each has room enough when the line is squeezed, and the whole reads better than its parts.
MANY = 16

Span = tuple[int, int]  # left and right edge of a part in its crop, pixels


def parts_of(image_size: tuple[int, int], canvas_size: tuple[int, int]) -> list[Span]:
    """The parts of a crop, left to right; none where it is read whole alone.

    Args:
        image_size: height and width of the crop in pixels.
        canvas_size: of the widest canvas.
    """
    (height, width), (canvas_height, widest) = image_size, canvas_size
    columns = width * canvas_height / height
    if columns <= SQUEEZE * widest:
        return []
    count = min(MOST_PARTS, math.ceil((columns - OVERLAP) / (widest - OVERLAP)))
    each = (columns + (count - 1) * OVERLAP) / count
    scale = width / columns
    lefts = [place * (each - OVERLAP) * scale for place in range(count)]
    return [(round(left), min(width, round(left + each * scale))) for left in lefts]


def better(whole: Reading, parts: Sequence[Reading], spans: Sequence[Span], height: int) -> Reading:
    """Of a line's reading as a whole and that of its parts together, the more confident.

    Args:
        whole: boxes in pixels of the crop.
        parts: boxes in pixels of each part.
        spans: of the parts.
        height: of the crop.
    """
    line = joined(parts, spans, height)
    return line if len(line.text) >= MANY and line.confidence > whole.confidence else whole


def joined(parts: Sequence[Reading], spans: Sequence[Span], height: int) -> Reading:
    """One reading of neighbouring parts, boxes in pixels of the crop.

    Neighbours are joined within the longest run of letters that both saw in one place, at its letter nearest to the
    middle of what they share; without any, in the middle. The confidence is the product of the characters'.

    Args:
        parts, spans, height: as of `better`.
    """
    line: list[_Placed] = []
    for place, (reading, (left, _)) in enumerate(zip(parts, spans, strict=True)):
        moved = reading.moved(partial(_to_the_right, by=left))
        further = [(character, place, index) for index, character in enumerate(moved.characters)]
        line = _join(line, further, (spans[place - 1][1] + left) / 2, NEAR * height) if place else further
    characters = tuple(character for character, _, _ in line)
    return Reading(
        "".join(character.text for character in characters),
        math.prod(character.confidence for character in characters),
        characters,
        _attention(line, parts, spans),
    )


def _to_the_right(box: Box, by: float) -> Box:
    x0, y0, x1, y1 = box
    return x0 + by, y0, x1 + by, y1


_Placed = tuple[Character, int, int]  # a character, its part and its place there


def _join(first: Sequence[_Placed], second: Sequence[_Placed], middle: float, near: float) -> list[_Placed]:
    same = {
        (k, m)
        for (k, one), (m, other) in product(enumerate(first), enumerate(second))
        if one[0].text.lower() == other[0].text.lower() and abs(_centre(one) - _centre(other)) <= near
    }
    if not same:
        left = [one for one in first if _centre(one) < middle]
        return [*left, *(one for one in second if _centre(one) >= middle)]
    longest = max((_run(same, pair) for pair in same), key=len)
    k, m = min(longest, key=lambda pair: abs(_centre(first[pair[0]]) + _centre(second[pair[1]]) - 2 * middle))
    return [*first[: k + 1], *second[m + 1 :]]


def _run(same: Collection[tuple[int, int]], pair: tuple[int, int]) -> list[tuple[int, int]]:
    """The pair and those that follow it one by one in both: of the two o's of a word, each is then its own."""
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
    seen = [one[..., : max(1, round(part.covered * one.shape[-1]))] for one, part in zip(maps, parts, strict=True)]
    scale = seen[0].shape[-1] / (spans[0][1] - spans[0][0])  # columns a pixel
    whole = np.zeros((len(line) + 1, seen[0].shape[1], round(scale * spans[-1][1])), np.float32)
    last = len(parts) - 1
    for row, (place, index) in enumerate([*((p, i) for _, p, i in line), (last, len(parts[last].text))]):
        first = min(round(scale * spans[place][0]), whole.shape[2] - 1)
        columns = min(seen[place].shape[-1], whole.shape[2] - first)
        whole[row, :, first : first + columns] = seen[place][index, :, :columns]
    return whole
