"""Sloped lines: found by where the network looked, and laid level."""

import cv2
import numpy as np
import pytest

from str_app.levelling import STEEPEST, level, slope

HEIGHT, WIDTH = 32, 96


def glimpses(falls: float, count: int = 5) -> np.ndarray:
    """Attention (L, 8, 24) along a line through the middle that falls by so many rows a column."""
    maps = np.zeros((count, 8, 24), dtype=np.float32)
    for place, x in enumerate(np.linspace(8, WIDTH - 8, count)):
        y = HEIGHT / 2 + falls * (x - WIDTH / 2)
        maps[place, int(np.clip(y / 4, 0, 7)), int(x / 4)] = 1
    return maps


@pytest.mark.parametrize("falls", [-0.3, -0.15, 0.0, 0.15, 0.3])
def test_the_slope_is_that_of_the_glimpses(falls: float) -> None:
    assert slope(glimpses(falls), (HEIGHT, WIDTH)) == pytest.approx(falls, abs=0.05)


def test_one_character_has_no_slope() -> None:
    assert slope(glimpses(0.3, count=1), (HEIGHT, WIDTH)) == 0
    assert slope(glimpses(0.3, count=0), (HEIGHT, WIDTH)) == 0


def test_characters_above_each_other_are_no_line() -> None:
    maps = np.zeros((3, 8, 24), dtype=np.float32)
    maps[[0, 1, 2], [0, 3, 7], 4] = 1
    assert abs(slope(maps, (HEIGHT, WIDTH))) <= STEEPEST


@pytest.mark.parametrize("falls", [-0.4, 0.4])
def test_a_sloped_bar_is_laid_level(falls: float) -> None:
    crop = np.full((80, 120, 3), 255, dtype=np.uint8)
    half = 0.4 * 120 / 2
    ends = ((0, round(40 - np.sign(falls) * half)), (119, round(40 + np.sign(falls) * half)))
    cv2.line(crop, *ends, (0, 0, 0), 9)
    levelled = level(crop, falls)
    assert levelled.shape[1] == 120
    assert levelled.shape[0] == pytest.approx(1.08 * (80 - 0.4 * 120), abs=1)
    dark = levelled[:, 10:-10, 0] < 128
    middles = [np.flatnonzero(column).mean() for column in dark.T]
    assert max(middles) - min(middles) < 2, "level"
    assert np.mean(middles) == pytest.approx((levelled.shape[0] - 1) / 2, abs=1.5), "in the middle"


def test_something_is_left_of_a_line_steeper_than_its_crop() -> None:
    assert level(np.zeros((20, 100, 3), dtype=np.uint8), STEEPEST).shape == (6, 100, 3)
    assert level(np.zeros((4, 4, 3), dtype=np.uint8), -STEEPEST).shape == (4, 4, 3)
