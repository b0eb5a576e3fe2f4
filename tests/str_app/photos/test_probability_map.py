"""Quadrilaterals from maps of text probabilities."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from str_app.photos.probability_map import MapPolicy, clockwise_from_top_left, detections_of

POLICY = MapPolicy()


def map_with(*rectangles: tuple[tuple[float, float], tuple[float, float], float], probability: float = 0.9):
    probabilities = np.zeros((200, 300), np.float32)
    for rectangle in rectangles:
        corners = np.round(cv2.boxPoints(rectangle)).astype(np.int32)
        cv2.fillPoly(probabilities, [corners], probability)
    return probabilities


def test_kernels_grow_and_are_scaled_to_the_photograph() -> None:
    (found,) = detections_of(map_with(((100, 60), (80, 20), 0)), (2.0, 3.0), POLICY)
    growth = POLICY.unclip * 80 * 20 / (2 * (80 + 20))  # on every side
    expected = np.array([[60 - growth, 50 - growth], [140 + growth, 70 + growth]]) * [2, 3]
    assert found.quad[0] == pytest.approx(expected[0], abs=4)
    assert found.quad[2] == pytest.approx(expected[1], abs=4)
    assert found.score == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("angle", [-40, -20, 10, 35])
def test_slanted_text_begins_at_its_top_left(angle: float) -> None:
    (found,) = detections_of(map_with(((150, 100), (120, 16), angle)), (1.0, 1.0), POLICY)
    across = found.quad[1] - found.quad[0]
    assert np.degrees(np.arctan2(across[1], across[0])) == pytest.approx(angle, abs=2)
    assert np.linalg.norm(across) > np.linalg.norm(found.quad[3] - found.quad[0])


def test_weak_and_tiny_kernels_are_dropped() -> None:
    assert detections_of(map_with(((100, 60), (80, 20), 0), probability=0.4), (1, 1), POLICY) == []
    assert detections_of(map_with(((100, 60), (80, 1), 0)), (1, 1), POLICY) == []
    assert detections_of(np.zeros((64, 64), np.float32), (1, 1), POLICY) == []


@pytest.mark.parametrize("roll", range(4))
@pytest.mark.parametrize("flip", [False, True])
def test_corners_in_any_order(roll: int, flip: bool) -> None:
    corners = np.array([[10, 10], [90, 14], [88, 40], [8, 36]], np.float32)
    mixed = np.roll(corners[::-1] if flip else corners, roll, axis=0)
    assert (clockwise_from_top_left(mixed) == corners).all()
