"""Which words follow each other in a line, and in which order lines are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from str_app.photos.detector import Quad


class LayoutPolicy(NamedTuple):
    """What makes two pieces of text neighbours in a line.

    Attributes:
        gap: most that may lie between them, in heights of the lower one.
        overlap: least share of the lower one's height that both have in common, measured along the line.
        ratio: most that their heights may differ, as a factor.
        angle: most that their directions may differ, in degrees.
    """

    gap: float = 1.2
    overlap: float = 0.5
    ratio: float = 1.8
    angle: float = 15.0


DEFAULT_LAYOUT = LayoutPolicy()


def lines_of(quads: Sequence[Quad], policy: LayoutPolicy = DEFAULT_LAYOUT) -> list[list[int]]:
    """Indices of the pieces of text that make each line, from its first word to its last; lines in no order.

    Args:
        quads: of words or of pieces of lines, clockwise from the top left of the first letter.
        policy: thresholds.
    """
    count = len(quads)
    if not count:
        return []
    # Every piece is joined to the nearest one that may follow it, nearest pairs first, and each has one follower.
    frames = _frames(np.stack(quads))
    pairs = [
        (float(distance), first, int(second))
        for first in range(count)
        for second, distance in zip(*_followers(frames, first, policy), strict=True)
    ]
    following: dict[int, int] = {}
    preceded: set[int] = set()
    for _, first, second in sorted(pairs):
        if first not in following and second not in preceded and not _reaches(following, second, first):
            following[first] = second
            preceded.add(second)
    return chains(following, count)


def chains(following: Mapping[int, int], count: int) -> list[list[int]]:
    """`count` indices as chains of each and what follows it, by their first index."""
    found = []
    for start in sorted(set(range(count)) - set(following.values())):
        chain = [start]
        while chain[-1] in following:
            chain.append(following[chain[-1]])
        found.append(chain)
    return found


def reading_order(quads: Sequence[Quad]) -> list[int]:
    """Indices of lines in the order in which a person reads them: down a column, then the next column.

    Breuel, "High performance document layout analysis" (2003): line a comes before b if both share horizontal space
    and a is above b, or if a is wholly left of b and no line between them in height spans both. The order is any that
    keeps to these rules; where they contradict each other, higher lines come first.

    Args:
        quads: of the lines, clockwise from the top left of the first letter.
    """
    if len(quads) < 2:
        return list(range(len(quads)))
    page = LevelLines.of(quads)
    left, right, middle = page.left, page.right, page.middle
    shares = page.share_columns()
    above = middle[:, None] < middle
    before = shares & above
    left_of = ~shares & (left[:, None] < left) & (right[:, None] < right)
    for a in range(len(quads)):
        to_right, same = np.flatnonzero(left_of[a]), np.flatnonzero(shares[a])
        low, high = np.minimum(middle[a], middle[to_right]), np.maximum(middle[a], middle[to_right])
        between = (middle[same, None] > low) & (middle[same, None] < high)
        before[a, to_right] = ~(between & shares[np.ix_(same, to_right)]).any(axis=0)
    return _topological(before, np.lexsort((left, middle)))


class LevelLines(NamedTuple):
    """Of N lines, the page turned so that most are level: edges, middles and heights, each (N,); level: which are."""

    left: npt.NDArray[np.float64]
    right: npt.NDArray[np.float64]
    middle: npt.NDArray[np.float64]
    height: npt.NDArray[np.float64]
    level: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, quads: Sequence[Quad]) -> LevelLines:
        corners = _straightened(np.stack(quads))
        frames = _frames(corners)
        left, right = corners[:, :, 0].min(axis=1), corners[:, :, 0].max(axis=1)
        return cls(left, right, frames.middle[:, 1], frames.height, frames.along[:, 0] > 0.9)

    def share_columns(self) -> npt.NDArray[np.bool_]:
        """(N, N), whether two lines share horizontal space."""
        # A serif's breadth is no shared space: a third of the lower line's height may overlap.
        slack = np.minimum(self.height[:, None], self.height) / 3
        common = np.minimum(self.right[:, None], self.right) - np.maximum(self.left[:, None], self.left)
        return np.asarray(common > slack)


class _Frames(NamedTuple):
    """Of N quads: middles (N, 2), directions of reading as unit vectors (N, 2), widths (N,) and heights (N,)."""

    middle: npt.NDArray[np.float64]
    along: npt.NDArray[np.float64]
    width: npt.NDArray[np.float64]
    height: npt.NDArray[np.float64]


def _frames(quads: npt.NDArray[np.floating]) -> _Frames:
    """Of corners (N, 4, 2)."""
    top_left, top_right, bottom_right, bottom_left = quads.astype(np.float64).transpose(1, 0, 2)
    across = (top_right + bottom_right) / 2 - (top_left + bottom_left) / 2
    width = np.maximum(np.linalg.norm(across, axis=1), 1e-6)
    left, right = np.linalg.norm(bottom_left - top_left, axis=1), np.linalg.norm(bottom_right - top_right, axis=1)
    middle = quads.mean(axis=1, dtype=np.float64)
    return _Frames(middle, across / width[:, None], width, np.maximum((left + right) / 2, 1e-6))


def _followers(
    frames: _Frames, first: int, policy: LayoutPolicy
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The pieces that may follow one in its line, and their distances from it."""
    lower = np.minimum(frames.height, frames.height[first])
    # Measured along the mean direction, in which a curved or slanted line goes on.
    along = frames.along + frames.along[first]
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)
    offset = frames.middle - frames.middle[first]
    gap = (offset * along).sum(axis=1) - (frames.width + frames.width[first]) / 2
    aside = np.abs(offset[:, 1] * along[:, 0] - offset[:, 0] * along[:, 1])
    common = np.minimum((frames.height + frames.height[first]) / 2 - aside, lower)
    fits = (np.maximum(frames.height, frames.height[first]) <= policy.ratio * lower) & (
        common >= policy.overlap * lower
    )
    fits &= frames.along @ frames.along[first] >= np.cos(np.radians(policy.angle))
    fits &= (gap > -0.5 * lower) & (gap < policy.gap * lower)
    fits[first] = False
    (second,) = np.nonzero(fits)
    return second, np.maximum(gap, 0.0)[second] + aside[second]


def _reaches(following: dict[int, int], start: int, end: int) -> bool:
    while start in following:
        start = following[start]
        if start == end:
            return True
    return start == end


def _straightened(corners: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The corners, (N, 4, 2), turned so that the longest lines are level."""
    across = corners[:, 1] - corners[:, 0]
    angles = np.arctan2(across[:, 1], across[:, 0])
    lengths = np.hypot(across[:, 0], across[:, 1])
    order = np.argsort(angles)
    half = np.searchsorted(np.cumsum(lengths[order]), lengths.sum() / 2)
    angle = float(angles[order][min(int(half), len(order) - 1)])  # weighted median
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(corners.astype(np.float64) @ turn)


def _topological(before: npt.NDArray[np.bool_], preference: npt.NDArray[np.int64]) -> list[int]:
    """Depth first, so that a column is finished before the next one begins."""
    order: list[int] = []
    visited: set[int] = set()

    def predecessors(node: int) -> Iterator[int]:
        return (int(other) for other in preference if before[other, node])

    for root in map(int, preference):
        stack = [] if root in visited else [(root, predecessors(root))]
        visited.add(root)
        while stack:
            node, rest = stack[-1]
            unvisited = next((other for other in rest if other not in visited), None)
            if unvisited is None:
                order.append(node)
                stack.pop()
            else:
                visited.add(unvisited)
                stack.append((unvisited, predecessors(unvisited)))
    return order
