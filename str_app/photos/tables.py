"""Which lines stand side by side in the row of a table, price list or form."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from str_app.photos.detector import Quad
from str_app.photos.layout import LevelLines, chains


class TablePolicy(NamedTuple):
    """What makes lines side by side a row; chosen on composed pages, see docs/how-to/photographs.md.

    Attributes:
        overlap: least share of the lower cell's height that neighbours in a row have in common.
        ratio: most that their heights may differ, as a factor.
        apart: most that consecutive rows of a table may be apart, in heights.
        numbers: least share of rows with a number, or with a label that ends with a colon.
        few_rows: a table without them has at least so many rows …
        narrow: … and a column whose median cell is at most so many heights wide, as no running text is.
        lone_gap: widest gap in a row that has no other row above or below, in heights.
    """

    overlap: float = 0.5
    ratio: float = 1.8
    apart: float = 5.0
    numbers: float = 0.5
    few_rows: int = 3
    narrow: float = 5.0
    lone_gap: float = 15.0


DEFAULT_TABLES = TablePolicy()
Pair = tuple[int, int]  # neighbours in a row, the left one first


def rows_of(quads: Sequence[Quad], texts: Sequence[str], policy: TablePolicy = DEFAULT_TABLES) -> list[list[int]]:
    """Indices of the lines that make each row of a table, from left to right; every other line is a row of its own.

    Neighbouring columns are a table if most of the rows that both share hold a number or a label, or if one column is
    too narrow for running text. Otherwise they are columns of text, to be read one after the other.

    Args:
        quads: of the lines, clockwise from the top left of the first letter.
        texts: what the lines say.
        policy: thresholds.
    """
    if len(quads) < 2:
        return [[index] for index in range(len(quads))]
    cells = LevelLines.of(quads)
    gutters = _gutters(_pairs(cells, policy), cells, policy)
    numeric = [_is_number(text) for text in texts]
    tables = [gutter for gutter in gutters if _is_table(gutter, cells, numeric, texts, policy)]
    right_of = {a: b for gutter in tables if not _parts_lists(gutter, tables, numeric) for a, b in gutter}
    return chains(right_of, len(quads))


def _pairs(cells: LevelLines, policy: TablePolicy) -> list[Pair]:
    """Lines that are each other's nearest neighbours at the same height."""
    height = cells.height
    lower = np.minimum(height[:, None], height)
    common = (height[:, None] + height) / 2 - np.abs(cells.middle[:, None] - cells.middle)
    fits = (common >= policy.overlap * lower) & (np.maximum(height[:, None], height) <= policy.ratio * lower)
    fits &= cells.level[:, None] & cells.level
    centre = cells.left + cells.right
    fits &= centre[:, None] < centre  # narrow ones may overlap: no two stand right of each other
    gap = cells.left - cells.right[:, None]  # from the row's line to the column's line
    gap = np.where(fits & (gap > -0.5 * lower), gap, np.inf)
    np.fill_diagonal(gap, np.inf)
    right, left = gap.argmin(axis=1), gap.argmin(axis=0)
    return [(a, int(b)) for a, b in enumerate(right) if np.isfinite(gap[a, b]) and left[b] == a]


def _gutters(pairs: Sequence[Pair], cells: LevelLines, policy: TablePolicy) -> list[list[Pair]]:
    """Pairs that stand one below another, with the same gap between their columns."""

    first, second = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    height, middle, shares = cells.height[first], cells.middle[first], cells.share_columns()
    near = np.abs(middle[:, None] - middle) <= policy.apart * np.maximum(height[:, None], height)
    right, left = cells.right[first], cells.left[second]
    common_gap = np.maximum(right[:, None], right) < np.minimum(left[:, None], left)
    linked = near & common_gap & shares[np.ix_(first, first)] & shares[np.ix_(second, second)]

    gutter = np.arange(len(pairs))  # of each pair, by its lowest index
    for one, other in np.argwhere(np.tril(linked, -1)):
        new, old = sorted((gutter[one], gutter[other]))
        gutter[gutter == old] = new
    members: dict[int, list[Pair]] = defaultdict(list)
    for number, pair in zip(gutter.tolist(), pairs, strict=True):
        members[number].append(pair)
    return list(members.values())


def _is_table(
    gutter: Sequence[Pair], cells: LevelLines, numeric: Sequence[bool], texts: Sequence[str], policy: TablePolicy
) -> bool:
    telling = [numeric[a] or numeric[b] or texts[a].rstrip().endswith(":") for a, b in gutter]
    if len(gutter) == 1:
        a, b = gutter[0]
        close = cells.left[b] - cells.right[a] <= policy.lone_gap * min(cells.height[a], cells.height[b])
        return bool(telling[0] and close)
    if np.mean(telling) >= policy.numbers:
        return True
    widths = (cells.right - cells.left) / cells.height
    narrowest = min(float(np.median([widths[pair[side]] for pair in gutter])) for side in (0, 1))
    return len(gutter) >= policy.few_rows and narrowest <= policy.narrow


def _parts_lists(gutter: Sequence[Pair], tables: Sequence[Sequence[Pair]], numeric: Sequence[bool]) -> bool:
    """Whether it lies between two lists of names and numbers side by side, each of which is read by itself."""

    def numbers(column: set[int]) -> bool:
        return sum(numeric[cell] for cell in column) > len(column) / 2

    lefts, rights = {a for a, _ in gutter}, {b for _, b in gutter}
    if not numbers(lefts) or numbers(rights):
        return False
    before = {a for table in tables for a, b in table if b in lefts}
    after = {b for table in tables for a, b in table if a in rights}
    return bool(before) and bool(after) and not numbers(before) and numbers(after)


def _is_number(text: str) -> bool:
    """A price, time or date, perhaps with a unit."""
    digits, letters = sum(map(str.isdigit, text)), sum(map(str.isalpha, text))
    return digits > 0 and 1.5 * digits >= letters
