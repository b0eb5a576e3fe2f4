"""Sloped and bent lines: found by where the network looked, and laid level."""

import cv2
import numpy as np
import pytest

from str_app.policy import DEFAULT_POLICY
from str_app.views.levelling import Line, fit_line, level

STEEPEST = DEFAULT_POLICY.steepest

HEIGHT, WIDTH = 32, 96


def glimpses(falls: float, count: int = 5, sags: float = 0.0) -> np.ndarray:
    """Attention (L, 8, 24) along a line through the middle that falls by so many rows a column and sags at its ends."""
    maps = np.zeros((count, 8, 24), dtype=np.float32)
    for place, x in enumerate(np.linspace(8, WIDTH - 8, count)):
        y = HEIGHT / 2 + falls * (x - WIDTH / 2) + sags * ((2 * x / WIDTH - 1) ** 2 - 0.5)
        row = float(np.clip(y / 4 - 0.5, 0, 6.999))
        maps[place, int(row), int(x / 4)] = 1 - row % 1
        maps[place, int(row) + 1, int(x / 4)] = row % 1
    return maps


@pytest.mark.parametrize("falls", [-0.3, -0.15, 0.0, 0.15, 0.3])
def test_the_slope_is_that_of_the_glimpses(falls: float) -> None:
    line = fit_line(glimpses(falls), (HEIGHT, WIDTH))
    assert line.slope == pytest.approx(falls, abs=0.05)
    assert line.bend == 0


@pytest.mark.parametrize("sags", [-16.0, 16.0])
@pytest.mark.parametrize("falls", [0.0, 0.1])
def test_the_bend_is_that_of_the_glimpses(sags: float, falls: float) -> None:
    line = fit_line(glimpses(falls, 9, sags), (HEIGHT, WIDTH))
    assert 0.5 < line.bend * (WIDTH / 2) ** 2 / sags < 1, "pulled towards none"
    assert line.slope == pytest.approx(falls, abs=0.05)


def test_few_characters_do_not_bend_a_line() -> None:
    lowered = glimpses(0.0, 4)
    lowered[1:3] = np.roll(lowered[1:3], 2, axis=1)
    assert fit_line(lowered, (HEIGHT, WIDTH)).bend == 0
    one_of_many = glimpses(0.0, 9)
    one_of_many[4] = np.roll(one_of_many[4], 1, axis=0)
    assert fit_line(one_of_many, (HEIGHT, WIDTH)).bend == 0


def test_one_character_has_no_slope() -> None:
    assert fit_line(glimpses(0.3, count=1), (HEIGHT, WIDTH)) == Line()
    assert fit_line(glimpses(0.3, count=0), (HEIGHT, WIDTH)) == Line()


def test_characters_above_each_other_are_a_level_line() -> None:
    maps = np.zeros((3, 8, 24), dtype=np.float32)
    maps[[0, 1, 2], [0, 3, 7], 4] = 1
    assert fit_line(maps, (HEIGHT, WIDTH)).slope == 0


def test_a_line_is_no_steeper_than_can_be_levelled() -> None:
    maps = np.zeros((2, 8, 24), dtype=np.float32)
    maps[[0, 1], [0, 7], [11, 12]] = 1  # falls by 28 rows within 4 columns
    assert fit_line(maps, (HEIGHT, WIDTH)).slope == STEEPEST
    assert fit_line(maps[::-1, ::-1], (HEIGHT, WIDTH)).slope == -STEEPEST


@pytest.mark.parametrize(("falls", "sags"), [(-0.4, 0), (0.4, 0), (0, 30), (0, -30), (0.2, 20)])
def test_a_bar_is_laid_level(falls: float, sags: float) -> None:
    x = np.arange(120)
    course = falls * (x - 59.5) + sags * ((x - 59.5) / 60) ** 2
    y = np.round(40 + course - (course.max() + course.min()) / 2).astype(int)
    crop = np.full((80, 120, 3), 255, dtype=np.uint8)
    cv2.polylines(crop, [np.stack([x, y], axis=1).astype(np.int32)], False, (0, 0, 0), 9)
    levelled = level(crop, Line(falls, sags / 60**2, 60.0))
    assert levelled.shape[1] == 120
    assert levelled.shape[0] == pytest.approx(1.08 * (80 - np.ptp(course)), abs=1.5)
    dark = levelled[:, 10:-10, 0] < 128
    middles = [np.flatnonzero(column).mean() for column in dark.T]
    assert max(middles) - min(middles) < 2, "level"
    assert np.mean(middles) == pytest.approx((levelled.shape[0] - 1) / 2, abs=1.5), "in the middle"


def test_spokes_of_an_arc_become_verticals() -> None:
    crop = np.full((80, 160, 3), 255, dtype=np.uint8)
    radius, middle = 200.0, 79.5
    for degrees in (-15, 0, 15):
        a = np.deg2rad(degrees)
        ends = [
            (round(middle + r * np.sin(a)), round(45 - 12 + radius - r * np.cos(a))) for r in (radius - 8, radius + 8)
        ]
        cv2.line(crop, *ends, (0, 0, 0), 3)
    levelled = level(crop, Line(0.0, 1 / (2 * radius), 80.0))
    for side in (levelled[:, :60, 0], levelled[:, -60:, 0]):
        rows = np.flatnonzero((side < 128).any(axis=1))
        top, bottom = (np.flatnonzero(side[row] < 128).mean() for row in (rows[2], rows[-3]))
        assert abs(top - bottom) < 1.5


def test_something_is_left_of_a_line_steeper_than_its_crop() -> None:
    assert level(np.zeros((20, 100, 3), dtype=np.uint8), Line(STEEPEST)).shape == (6, 100, 3)
    assert level(np.zeros((4, 4, 3), dtype=np.uint8), Line(-STEEPEST)).shape == (4, 4, 3)
