"""Lines too long for the widest canvas: read in overlapping parts, which are aligned by text and place and joined."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from str_app.policy import DEFAULT_POLICY, SearchPolicy
from str_app.reading import Box, Character, Reading
from str_app.views.canvas import Span

SHORT_PARTS = 3  # up to this many are made so that none is squeezed
MAX_PARTS = 9  # of lines up to 50:1, which `ImageLimits` accepts; those of longer ones are squeezed more


def parts_of(
    crop_size: tuple[int, int], canvas_size: tuple[int, int], policy: SearchPolicy = DEFAULT_POLICY
) -> list[Span]:
    """The parts of a crop, left to right; none where the crop is read as a whole only.

    Up to three parts are made so that none is squeezed. Longer lines keep three, squeezed by up to
    `SearchPolicy.squeeze`, before they get more.

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
    fewest = math.ceil((columns - overlap) / (policy.squeeze * widest - overlap))
    unsqueezed = math.ceil((columns - overlap) / (widest - overlap))
    count = min(MAX_PARTS, max(fewest, min(SHORT_PARTS, unsqueezed)))
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

    In both, doubled digits cost confidence: the network drops one of them more often than its probabilities say.

    Args:
        whole: boxes in pixels of the crop.
        parts: boxes in pixels of each part.
        spans: of the parts.
        height: of the crop.
        policy: `doubled` and those of `joined`.
    """

    def doubted(reading: Reading) -> Reading:
        pairs = len(re.findall(r"(\d)(?=\1)", reading.text))
        return replace(reading, confidence=reading.confidence * policy.doubled**pairs)

    return max(doubted(whole), doubted(joined(parts, spans, height, policy)), key=lambda line: line.confidence)


def joined(
    parts: Sequence[Reading], spans: Sequence[Span], height: int, policy: SearchPolicy = DEFAULT_POLICY
) -> Reading:
    """One reading of neighbouring parts, boxes in pixels of the crop.

    The characters of both parts in their overlap are aligned at the least cost; of an aligned pair, and of a character
    that only one part has, the part is believed whose edge is farther. The confidence is the product of the
    characters', less for whatever the parts dispute, and much less where a part of the crop is left without text.

    Args:
        parts, spans, height, policy: as of `whole_or_parts`.
    """
    placed = [
        [_Placed(character, part, position) for position, character in enumerate(_moved(reading, left).characters)]
        for part, (reading, (left, _)) in enumerate(zip(parts, spans, strict=True))
    ]
    gaps = [after.x - before.x for of_part in placed for before, after in pairwise(of_part)]
    pitch = max(1.0, statistics.median(gaps)) if gaps else float(height)
    line, confidence = placed[0], 1.0
    for further, (begin, _), (_, end) in zip(placed[1:], spans[1:], spans, strict=False):
        line, agreement = _Seam(begin, end, pitch, policy).join(line, further)
        confidence *= agreement
    characters = tuple(character for character, _, _ in line)
    ends = (line[0].x, spans[-1][1] - line[-1].x) if line else ()
    if any(end > policy.blank_end * pitch for end in ends):
        confidence *= policy.cut_short
    return Reading(
        "".join(character.text for character in characters),
        math.prod((character.confidence for character in characters), start=confidence),
        characters,
        _attention(line, parts, spans),
    )


def _moved(reading: Reading, by: float) -> Reading:
    def right(box: Box) -> Box:
        x0, y0, x1, y1 = box
        return x0 + by, y0, x1 + by, y1

    return reading.with_boxes(right)


class _Placed(NamedTuple):
    """A character of a line, its part, and its position in that part's text."""

    character: Character
    part: int
    position: int

    @property
    def x(self) -> float:
        """Column of its centre in the crop."""
        left, _, right, _ = self.character.box
        return (left + right) / 2

    def says(self, other: _Placed) -> bool:
        """Whether it is the same letter, in either case."""
        return self.character.text.lower() == other.character.text.lower()


class _Seam:
    """Joins two neighbouring parts that overlap from `begin` to `end`, columns of the crop."""

    def __init__(self, begin: float, end: float, pitch: float, policy: SearchPolicy) -> None:
        self._begin, self._end, self._pitch, self._policy = begin, end, pitch, policy

    def join(self, left: Sequence[_Placed], right: Sequence[_Placed]) -> tuple[list[_Placed], float]:
        """The joined characters, and the factor on their confidence that the overlap leaves."""
        reach, disputed = self._policy.seam_reach * self._pitch, self._policy.disputed
        first = next((i for i, item in enumerate(left) if item.x >= self._begin - reach), len(left))
        last = next((j for j, item in enumerate(right) if item.x > self._end + reach), len(right))
        kept, factor, agreed = list(left[:first]), 1.0, False
        for one, other in self._alignment(left[first:], right[:last]):
            if one and other:
                evidence = self._left_sees(one) * one.character.confidence
                counter = self._right_sees(other) * other.character.confidence
                kept.append(one if evidence >= counter else other)
                if one.says(other):
                    agreed = True
                else:
                    factor *= 1 - disputed * min(evidence, counter)
            elif item := one or other:
                seen, missed = self._left_sees(item), self._right_sees(item)
                if (seen >= missed) == bool(one):
                    kept.append(item)
                factor *= 1 - disputed * (min(seen, missed) - self._policy.seam_floor)
        return [*kept, *right[last:]], factor if agreed else disputed * factor

    def _left_sees(self, item: _Placed) -> float:
        """How well the left part sees what is there: badly near its edge."""
        return self._sight(self._end - item.x)

    def _right_sees(self, item: _Placed) -> float:
        return self._sight(item.x - self._begin)

    def _sight(self, distance: float) -> float:
        return min(1.0, max(self._policy.seam_floor, distance / (self._policy.sight * self._pitch)))

    def _alignment(
        self, left: Sequence[_Placed], right: Sequence[_Placed]
    ) -> Iterator[tuple[_Placed | None, _Placed | None]]:
        """Pairs of characters that are the same one, and characters that only one part has, at the least cost."""
        costs = {(0, 0): (0.0, (0, 0))}  # how many of each are aligned → the cost, and the step before
        for i in range(len(left) + 1):
            for j in range(len(right) + 1):
                steps = []
                if i:
                    steps.append((costs[i - 1, j][0] + self._skipping(left[i - 1]), (i - 1, j)))
                if j:
                    steps.append((costs[i, j - 1][0] + self._skipping(right[j - 1]), (i, j - 1)))
                if i and j:
                    cost = costs[i - 1, j - 1][0] + self._pairing(left[i - 1], right[j - 1])
                    steps.append((cost, (i - 1, j - 1)))
                if steps:
                    costs[i, j] = min(steps, key=lambda step: step[0])
        i, j = len(left), len(right)
        backwards = []
        while i or j:
            _, (before_i, before_j) = costs[i, j]
            backwards.append((left[i - 1] if before_i < i else None, right[j - 1] if before_j < j else None))
            i, j = before_i, before_j
        return reversed(backwards)

    def _skipping(self, item: _Placed) -> float:
        """Cost of a character that only one part has: high where both parts see well."""
        return self._policy.seam_skip * (self._policy.seam_floor + self._left_sees(item) * self._right_sees(item))

    def _pairing(self, one: _Placed, other: _Placed) -> float:
        """Cost of taking two characters for the same: for their distance, and for what they say."""
        cost = self._policy.seam_move * ((one.x - other.x) / self._pitch) ** 2
        if not one.says(other):
            evidence = self._left_sees(one) * one.character.confidence
            cost += self._policy.seam_floor + min(evidence, self._right_sees(other) * other.character.confidence)
        return cost


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
