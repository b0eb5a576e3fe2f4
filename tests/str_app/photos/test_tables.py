"""Composed pages: tables are read row by row, columns of text one after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from str_app.photos.layout import lines_of, reading_order
from str_app.photos.photo_reader import quad_around
from str_app.photos.tables import rows_of
from tests.str_app.photos.composed_pages import PAGES, Page, numbers, price_list, quads, two_columns


def order(page: Page, angle: float, seed: int) -> list[int]:
    """The cells of a page, numbered as a person reads them, in the order in which they are read."""
    corners = quads(page, angle, noise=0.04, seed=seed)
    cells = [
        (quad, cell.text)
        for line, row in zip(page.lines, corners, strict=True)
        for cell, quad in zip(line, row, strict=True)
    ]
    shuffled = [int(index) for index in np.random.default_rng(seed).permutation(len(cells))]
    pieces = [cells[index][0] for index in shuffled]
    lines = lines_of(pieces)
    around = [quad_around([pieces[piece] for piece in line]) for line in lines]
    rows = rows_of(around, [" ".join(cells[shuffled[piece]][1] for piece in line) for line in lines])
    in_order = reading_order([quad_around([around[line] for line in row]) for row in rows])
    return [shuffled[piece] for at in in_order for line in rows[at] for piece in lines[line]]


@pytest.mark.parametrize("angle", [0, 5, 8, -8])
@pytest.mark.parametrize("make", PAGES, ids=lambda make: make.__name__)
def test_pages_are_read_as_a_person_reads_them(make: Callable[[], Page], angle: float) -> None:
    for seed in range(3):
        found = order(make(), angle, seed)
        assert found == sorted(found)


def rows(page: Page) -> list[list[str]]:
    cells = [
        (quad, cell.text)
        for line, row in zip(page.lines, quads(page), strict=True)
        for cell, quad in zip(line, row, strict=True)
    ]
    return [[cells[index][1] for index in row] for row in rows_of(*zip(*cells, strict=True))]


def test_a_row_is_one_line() -> None:
    for make in (numbers, price_list):
        assert rows(make()) == [[cell.text for cell in line] for line in make().lines]


def test_columns_of_text_are_no_rows() -> None:
    assert all(len(row) == 1 for row in rows(two_columns()))


def side_by_side(*cells: tuple[str, float, float, float]) -> list[list[str]]:
    """The rows of cells 20 pixels high: text, left, top, width."""
    corners = [np.float32([[x, y], [x + width, y], [x + width, y + 20], [x, y + 20]]) for _, x, y, width in cells]
    return [[cells[index][0] for index in row] for row in rows_of(corners, [text for text, *_ in cells])]


@pytest.mark.parametrize(
    ("first", "second", "left", "top", "is_row"),
    [
        ("Tea", "2.20", 300, 0, True),
        ("Name:", "Miller", 80, 0, True),
        ("Name", "Miller", 80, 0, False),
        ("Welcome", "Platform 9", 80, 0, False),
        ("Tea", "2.20", 400, 0, False),
        ("Tea", "2.20", 80, 14, False),
    ],
    ids=["price", "label", "no number", "mostly letters", "too far", "too low"],
)
def test_two_cells_alone(first: str, second: str, left: float, top: float, is_row: bool) -> None:
    rows = side_by_side((first, 0, 0, 60), (second, left, top, 60))
    assert rows == ([[first, second]] if is_row else [[first], [second]])


def test_a_price_beside_much_larger_letters_is_no_row() -> None:
    large, small = [[0, 0], [200, 0], [200, 60], [0, 60]], [[220, 20], [280, 20], [280, 40], [220, 40]]
    assert rows_of([np.float32(large), np.float32(small)], ["SALE", "9.99"]) == [[0], [1]]


def test_a_line_that_runs_downwards_is_no_cell() -> None:
    level, price = [[0, 200], [400, 200], [400, 220], [0, 220]], [[340, 40], [400, 40], [400, 60], [340, 60]]
    downwards = [[320, 0], [320, 100], [300, 100], [300, 0]]
    corners = [np.float32(quad) for quad in (level, downwards, price)]
    assert rows_of(corners, ["a level line", "down", "9.99"]) == [[0], [1], [2]]


@pytest.mark.parametrize(("count", "spacing", "are_rows"), [(3, 40, True), (2, 40, False), (3, 300, False)])
def test_a_table_without_numbers_has_three_rows_one_below_another(count: int, spacing: float, are_rows: bool) -> None:
    days = [(day, "closed") for day in ("Monday", "Tuesday", "Sunday")[:count]]
    cells = [(text, 110 * side, spacing * row, 75) for row, day in enumerate(days) for side, text in enumerate(day)]
    expected = [list(day) for day in days] if are_rows else [[text] for text, *_ in cells]
    assert side_by_side(*cells) == expected


def test_rows_without_a_common_gap_are_no_table() -> None:
    ends = [("Monday", 100), ("Wednesday", 160), ("Sunday", 100)]
    cells = [
        cell
        for row, (day, end) in enumerate(ends)
        for cell in ((day, 0, 40 * row, end), ("closed", end + 30, 40 * row, 90))
    ]
    assert side_by_side(*cells) == [[text] for text, *_ in cells]


def test_a_missing_cell_leaves_the_others_in_their_rows() -> None:
    page = price_list()
    page.lines[3].pop()  # a price
    page.lines[5].pop(0)  # a name
    assert rows(page) == [[cell.text for cell in line] for line in page.lines]


def test_nothing_and_one_line() -> None:
    assert rows_of([], []) == []
    assert rows_of(quads(two_columns())[0], ["News"]) == [[0]]


def test_narrow_pieces_that_overlap_are_all_kept() -> None:
    quads = [((0, 0), (8, 0), (8, 40), (0, 40)), ((2, 1), (9.5, 3.5), (-4, 41), (-11.5, 38.5))]
    rows = rows_of(np.array(quads, dtype=np.float64), ["1", "1"])
    assert sorted(index for row in rows for index in row) == [0, 1]
