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


def test_a_missing_cell_leaves_the_others_in_their_rows() -> None:
    page = price_list()
    page.lines[3].pop()  # a price
    page.lines[5].pop(0)  # a name
    assert rows(page) == [[cell.text for cell in line] for line in page.lines]


def test_nothing_and_one_line() -> None:
    assert rows_of([], []) == []
    assert rows_of(quads(two_columns())[0], ["News"]) == [[0]]
