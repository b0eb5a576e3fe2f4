"""Composed pages: which words make a line, and in which order lines are read."""

from __future__ import annotations

import numpy as np
import pytest

from str_app.photos.layout import lines_of, reading_order


def quad(x: float, y: float, width: float, height: float = 20, angle: float = 0) -> np.ndarray:
    """A rectangle with its top left corner at (x, y), turned about the origin by `angle` degrees clockwise."""
    corners = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
    radians = np.radians(angle)
    turn = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
    return (corners @ turn).astype(np.float32)


def two_columns(angle: float = 0) -> list[np.ndarray]:
    """Six lines a column, with a headline across both; in reading order."""
    lines = [quad(20, 10, 460, 40, angle)]
    return lines + [quad(x, 80 + 30 * row, 200, 20, angle) for x in (20, 280) for row in range(6)]


@pytest.mark.parametrize("angle", [0, 4, -6])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_columns_are_read_one_after_the_other(angle: float, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(13)
    lines = two_columns(angle)
    order = reading_order([lines[index] for index in shuffled])
    assert [int(shuffled[index]) for index in order] == list(range(13))


def test_a_sign_with_mixed_sizes_is_read_from_top_to_bottom() -> None:
    signs = [quad(40, 0, 300, 60), quad(150, 80, 80, 14), quad(60, 110, 260, 40), quad(10, 170, 120, 12)]
    assert reading_order(signs[::-1]) == [3, 2, 1, 0]


def test_pieces_of_a_line_are_joined_whatever_their_order() -> None:
    words = [quad(10, 50, 60), quad(80, 52, 40), quad(130, 49, 90), quad(10, 90, 50)]
    lines = {tuple(line) for line in lines_of(words)}
    assert lines == {(0, 1, 2), (3,)}
    assert {tuple(3 - index for index in line) for line in lines_of(words[::-1])} == lines


def test_slanted_lines() -> None:
    words = [quad(100 + 70 * column, 100 + 30 * row, 60, 20, 12) for row in range(3) for column in range(4)]
    assert sorted(lines_of(words)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_a_column_apart_or_another_size_is_another_line() -> None:
    assert len(lines_of([quad(0, 0, 100), quad(160, 0, 100)])) == 2
    assert len(lines_of([quad(0, 0, 100, 20), quad(110, -20, 100, 60)])) == 2


def test_a_line_goes_on_with_its_nearest_piece_at_its_own_height() -> None:
    assert lines_of([quad(0, 0, 60), quad(66, 8, 60), quad(72, 0, 60)]) == [[0, 2], [1]]


@pytest.mark.parametrize(
    "other",
    [quad(10, 2, 100), quad(110, 14, 60), quad(-30, -10, 60, 20, 30) + np.float32([145, 32])],
    ids=["over the first", "mostly lower", "turned by 30 degrees"],
)
def test_pieces_that_continue_no_line(other: np.ndarray) -> None:
    assert lines_of([quad(0, 0, 100), other]) == [[0], [1]]


def test_text_around_a_circle_is_kept() -> None:
    """Every piece follows another one; the line is cut somewhere."""
    pieces = [quad(-12, -200, 24, 20, angle) for angle in range(0, 360, 10)]
    (line,) = lines_of(pieces)
    assert sorted(line) == list(range(36))


def test_columns_that_touch_by_a_serif_are_columns() -> None:
    assert reading_order([quad(x, y, 205) for x in (0, 202) for y in (0, 30)]) == [0, 1, 2, 3]


def test_upside_down_lines_keep_their_own_direction() -> None:
    words = [np.roll(quad(x, 0, 60), 2, axis=0) for x in (100, 30)]  # the first word is on the right
    assert lines_of(words) == [[0, 1]]


def test_nothing() -> None:
    assert lines_of([]) == []
    assert reading_order([]) == []


def test_a_crowded_page() -> None:
    lines = [quad(20 + 210 * column, 30 * row, 200) for column in range(6) for row in range(200)]
    assert reading_order(lines[::-1]) == list(range(1199, -1, -1))
