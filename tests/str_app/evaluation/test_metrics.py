"""The protocol's numbers on cases worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from str_app.evaluation.metrics import (
    ALPHABET_62,
    ALPHABET_94,
    edit_distance,
    expected_calibration_error,
    normalise,
    restrict,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("America's", "americas"), ("$4.54", "454"), ("CAFÉ", "cafe"), ("ﬁve №5", "fiveno5"), ("...", ""), ("½", "12")],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_restrict_keeps_case() -> None:
    assert restrict("H&R Ünit", ALPHABET_62) == "HRUnit"
    assert restrict("H&R Ünit", ALPHABET_94) == "H&RUnit"


@pytest.mark.parametrize(("first", "second", "distance"), [("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)])
def test_edit_distance(first: str, second: str, distance: int) -> None:
    assert edit_distance(first, second) == distance


@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12))
def test_edit_distance_is_a_metric(first: str, second: str, third: str) -> None:
    assert edit_distance(first, first) == 0
    assert edit_distance(first, second) == edit_distance(second, first)
    assert edit_distance(first, third) <= edit_distance(first, second) + edit_distance(second, third)


def test_wilson_interval() -> None:
    assert wilson_interval(80, 100) == pytest.approx((0.71117, 0.86664), abs=1e-4)
    assert wilson_interval(10, 10) == pytest.approx((0.72247, 1.0), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_calibration() -> None:
    assert expected_calibration_error([1.0, 1.0, 0.0], [True, True, False]) == 0.0
    # One bin with mean confidence 0.95 and accuracy 0.5, another with 0.05 and 0.
    assert expected_calibration_error([0.95, 0.95, 0.05], [True, False, False]) == pytest.approx((2 * 0.45 + 0.05) / 3)
    assert expected_calibration_error([], []) == 0.0


def test_calibration_bins_take_their_upper_edge() -> None:
    # The first bin holds 0 (correct) and 1/15 (wrong), the second 2/15 (wrong).
    error = expected_calibration_error([0.0, 1 / 15, 2 / 15, 1.0], [True, False, False, True])
    assert error == pytest.approx((14 / 15 + 2 / 15) / 4)
