"""Plots put their points where the axes say."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ET

import pytest

from str_app.evaluation.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, Series, plot

SVG = "{http://www.w3.org/2000/svg}"


def circles(svg: str) -> list[tuple[float, float]]:
    return [(float(node.attrib["cx"]), float(node.attrib["cy"])) for node in ET.fromstring(svg).iter(f"{SVG}circle")]


def test_corners_of_the_plane() -> None:
    svg = plot("t", Axis("x", (0, 10)), Axis("y", (0, 100)), [Series("s", [0, 10], [0, 100], marks="points")])
    assert circles(svg) == [(LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, TOP)]


def test_a_logarithmic_axis_has_equal_steps_for_equal_factors() -> None:
    svg = plot("t", Axis("x", log=True), Axis("y"), [Series("s", [1, 10, 100], [0, 1, 2], marks="both")])
    (first, _), (second, _), (third, _) = circles(svg)
    assert second - first == pytest.approx(third - second, abs=0.2)


def test_values_beyond_the_bounds_stay_at_the_edge() -> None:
    svg = plot("t", Axis("x", (0, 1)), Axis("y", (0, 1)), [Series("s", [5], [-3], marks="points")])
    assert circles(svg) == [(WIDTH - RIGHT, HEIGHT - BOTTOM)]


def test_ticks_are_round() -> None:
    svg = plot("t", Axis("x", (0.02, 1), log=True), Axis("y", (50, 100)), [Series("s", [1], [60])])
    texts = [node.text for node in ET.fromstring(svg).iter(f"{SVG}text")]
    assert texts[:12] == ["0.02", "0.05", "0.1", "0.2", "0.5", "1", "50", "60", "70", "80", "90", "100"]


def test_text_is_escaped_and_notes_become_tooltips() -> None:
    one = Series("<i>", [1], [1], [(0, 2)], "points", ["3 < 4"])
    svg = plot("a & b", Axis("<x>"), Axis("y"), [one, Series("other", [1], [1])])
    titles = [node.text for node in ET.fromstring(svg).iter(f"{SVG}title")]
    assert titles == ["3 < 4"]


@pytest.mark.parametrize("names", [["a", "b"], ["none", "add", "mul", "add-sigmoid", "mul-sigmoid", "ur", "chrono"]])
def test_names_of_the_legend_do_not_overlap(names: list[str]) -> None:
    """Letters are at most 7 pixels wide on average, and the plot begins below the last row."""
    svg = ET.fromstring(plot("t", Axis("x"), Axis("y"), [Series(name, [1, 2], [1, 2]) for name in names]))
    texts = [(node.text or "", float(node.attrib["x"]), float(node.attrib["y"])) for node in svg.iter(f"{SVG}text")]
    shown = [text for text in texts if text[0] in names]
    assert [name for name, _, _ in shown] == names
    for (name, x, y), (_, next_x, next_y) in itertools.pairwise(shown):
        assert next_y > y or x + 7 * len(name) < next_x
    assert all(x + 7 * len(name) < WIDTH for name, x, _ in shown)
    grid = svg.find(f"{SVG}path")
    assert grid is not None
    assert float(grid.attrib["d"].split()[1].split("V")[0]) > shown[-1][2]


@pytest.mark.parametrize(
    ("x", "xs"),
    [(Axis("x"), []), (Axis("x"), [math.nan]), (Axis("x", log=True), [0.0]), (Axis("x", (0, 1), True), [1])],
)
def test_what_cannot_be_drawn_is_refused(x: Axis, xs: list[float]) -> None:
    with pytest.raises(ValueError, match="axis 'x'"):
        plot("t", x, Axis("y"), [Series("s", xs, [1.0] * len(xs))])
