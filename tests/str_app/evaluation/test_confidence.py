"""What confidences are good for, on cases worked out by hand."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from str_app.evaluation.confidence import (
    Threshold,
    coverage_plot,
    equal_mass_reliability,
    reliability_plot,
    selective_metrics,
)
from str_app.evaluation.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH

# Surest first: right, right, right, wrong, right, right, wrong, right, wrong, wrong.
CONFIDENCES = [0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
CORRECT = [True, True, True, False, True, True, False, True, False, False]


def test_selective_metrics_by_hand() -> None:
    metrics = selective_metrics(CONFIDENCES, CORRECT)
    assert metrics.accuracy_at_coverage == pytest.approx({80: 75.0, 90: 100 * 6 / 9, 95: 60.0, 100: 60.0})
    assert metrics.threshold_for_accuracy[99] == Threshold(0.9, 30.0, 100.0)
    risks = [0, 0, 0, 1 / 4, 1 / 5, 1 / 6, 2 / 7, 2 / 8, 3 / 9, 4 / 10]
    assert metrics.aurc == pytest.approx(100 * sum(risks) / 10)


def test_the_order_of_the_readings_does_not_matter() -> None:
    assert selective_metrics(CONFIDENCES[::-1], CORRECT[::-1]) == selective_metrics(CONFIDENCES, CORRECT)


def test_a_threshold_never_cuts_through_equal_confidences() -> None:
    metrics = selective_metrics([0.9, 0.9, 0.9, 0.1], [True, True, False, False])
    assert metrics.threshold_for_accuracy == {99: None, 97: None, 95: None}
    # Of three equally sure readings with two right, any one is right to two thirds.
    assert selective_metrics([0.9] * 3, [True, True, False]).aurc == pytest.approx(100 / 3)


def test_a_threshold_that_just_reaches_the_accuracy_is_one() -> None:
    confidences = [0.99 - 0.01 * k for k in range(20)]
    (*_, least), correct = confidences, [False] + [True] * 19
    assert selective_metrics(confidences, correct).threshold_for_accuracy == {
        **{99: None, 97: None},
        95: Threshold(least, 100.0, pytest.approx(95.0)),
    }


@pytest.mark.parametrize(("right", "of", "target"), [(19, 20, 95), (97, 100, 97), (99, 100, 99)])
def test_equal_confidences_that_just_reach_the_accuracy_are_enough(right: int, of: int, target: int) -> None:
    metrics = selective_metrics([0.9] * of, [True] * right + [False] * (of - right))
    assert metrics.threshold_for_accuracy[target] == Threshold(0.9, 100.0, target)


def test_reliability_does_not_depend_on_the_order_of_equal_confidences() -> None:
    for correct in ([True, True, False, False], [False, True, False, True]):
        assert [bar.accuracy for bar in equal_mass_reliability([0.9] * 4, correct, bins=2)] == [0.5, 0.5]


def test_json_says_null_where_no_threshold_is_enough() -> None:
    row = selective_metrics([0.5, 0.4], [False, True]).as_json()
    assert row["threshold_for_accuracy"] == {"99": None, "97": None, "95": None}
    assert row["accuracy_at_coverage"] == {"80": 50.0, "90": 50.0, "95": 50.0, "100": 50.0}


def test_bins_of_equal_mass() -> None:
    bars = equal_mass_reliability(CONFIDENCES, CORRECT, bins=3)
    assert [bar.size for bar in bars] == [3, 3, 4]
    assert (bars[0].low, bars[0].high, bars[0].accuracy) == (0.2, 0.4, pytest.approx(1 / 3))
    assert bars[2].confidence == pytest.approx((0.8 + 0.9 + 0.95 + 0.99) / 4)
    assert len(equal_mass_reliability([0.5, 0.6], [True, False], bins=10)) == 2


def test_plots_are_whole_and_name_the_set() -> None:
    for svg in (
        reliability_plot("a<b", CONFIDENCES, CORRECT),
        coverage_plot("a<b", [("one", CONFIDENCES, CORRECT), ("two", [0.5], [True])]),
    ):
        assert any("a<b" in (node.text or "") for node in ET.fromstring(svg).iter())
    assert reliability_plot("x", CONFIDENCES, CORRECT).count("<circle") == 10


def test_overconfident_readings_lie_below_the_diagonal() -> None:
    svg = ET.fromstring(reliability_plot("x", [0.9, 0.9], [True, False]))
    for circle in svg.iter("{http://www.w3.org/2000/svg}circle"):
        x = (float(circle.attrib["cx"]) - LEFT) / (WIDTH - LEFT - RIGHT)
        y = (HEIGHT - BOTTOM - float(circle.attrib["cy"])) / (HEIGHT - BOTTOM - TOP)
        assert (x, y) == pytest.approx((0.9, 0.5), abs=0.01)


def test_accuracy_falls_with_the_coverage_where_confidences_are_good() -> None:
    svg = ET.fromstring(coverage_plot("x", [("one", CONFIDENCES, [True] * 5 + [False] * 5)]))
    (line,) = (path.attrib["d"] for path in svg.iter("{http://www.w3.org/2000/svg}path") if "L" in path.attrib["d"])
    points = [tuple(map(float, point.split())) for point in re.split("[ML]", line)[1:]]
    assert points[0] == pytest.approx((LEFT + 0.1 * (WIDTH - LEFT - RIGHT), TOP), abs=0.1)
    assert points[-1] == pytest.approx((WIDTH - RIGHT, HEIGHT - BOTTOM), abs=0.1), "50 %, where the axis begins"
