"""From the network's columns to words."""

from __future__ import annotations

import numpy as np
import pytest

from str_app.photos.separator import DEFAULT_GAPS, scale, words_of
from str_app.photos.words import part_of


def columns(inside: str, top: float = 0.25, bottom: float = 0.75) -> np.ndarray:
    """W for a column within a word, - for one outside."""
    logits = [6.0 if char == "W" else -6.0 for char in inside]
    return np.array([logits, [top] * len(logits), [bottom] * len(logits)], np.float32)


def test_words_and_gaps() -> None:
    line = "--" + "W" * 20 + "-" * 4 + "W" * 30 + "-" * 4
    policy = DEFAULT_GAPS._replace(margin=0.0)
    assert words_of(columns(line), policy) == [(2 / 60, 22 / 60, 0.25, 0.75), (26 / 60, 56 / 60, 0.25, 0.75)]


def test_margins_stay_within_the_line() -> None:
    ((left, right, _, _),) = words_of(columns("W" * 40), DEFAULT_GAPS._replace(margin=0.5))
    assert (left, right) == (0.0, 1.0)


def test_specks_are_no_words_and_flicker_is_no_gap() -> None:
    policy = DEFAULT_GAPS._replace(least_gap=0.1, least_word=0.2, margin=0.0)
    line = "W" * 20 + "-" + "W" * 19 + "-" * 8 + "W" + "-" * 11
    assert [word[:2] for word in words_of(columns(line), policy)] == [(0.0, 40 / 60)]


@pytest.mark.parametrize("line", ["-" * 30, "W" * 30])
def test_a_line_has_a_word(line: str) -> None:
    assert len(words_of(columns(line), DEFAULT_GAPS)) == 1


def test_an_implausible_height_is_ignored() -> None:
    assert words_of(columns("W" * 30, 0.5, 0.52), DEFAULT_GAPS)[0][2:] == (0.0, 1.0)


@pytest.mark.parametrize(("size", "scaled"), [((64, 200), 100), ((16, 100), 200), ((40, 3), 8), ((10, 5000), 4096)])
def test_lines_are_scaled_to_one_height(size: tuple[int, int], scaled: int) -> None:
    assert scale(np.zeros((*size, 3), np.uint8)).shape == (32, scaled, 3)


def test_the_part_of_a_slanted_line() -> None:
    quad = np.array([[0, 0], [100, 50], [90, 70], [-10, 20]], np.float32)
    part = part_of(quad, (0.5, 1.0, 0.5, 1.0))
    assert np.allclose(part, [[45, 35], [95, 60], [90, 70], [40, 45]])
