"""From a map of text probabilities to quadrilaterals: the post-processing of DB (arXiv 1911.08947, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from str_app.photos.detector import Detection, Quad


class MapPolicy(NamedTuple):
    """Thresholds of the post-processing.

    Attributes:
        threshold: pixels above it belong to a text kernel.
        least_score: a kernel's mean probability over its rectangle, below which it is dropped.
        unclip: a kernel is shrunk text; its rectangle grows on all sides by its area times this over its perimeter.
        least_side: rectangles with a side shorter than this, in pixels of the map, are dropped.
    """

    threshold: float = 0.3
    least_score: float = 0.5
    unclip: float = 1.6
    least_side: float = 3.0


def detections_of(
    probabilities: npt.NDArray[np.float32], scale: tuple[float, float], policy: MapPolicy
) -> list[Detection]:
    """The rectangles around the text kernels of a map.

    Args:
        probabilities: float32 (H, W), 0 to 1.
        scale: pixels of the photograph per pixel of the map, horizontally and vertically.
        policy: thresholds.
    """
    kernels = (probabilities > policy.threshold).astype(np.uint8)
    contours, _ = cv2.findContours(kernels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    detections = []
    for contour in contours:
        centre, (width, height), angle = cv2.minAreaRect(contour)
        if min(width, height) < policy.least_side:
            continue
        corners = _corners(centre, (width, height), angle)
        score = _mean_inside(probabilities, corners)
        if score < policy.least_score:
            continue
        growth = 2 * policy.unclip * width * height / (2 * (width + height))
        grown = _corners(centre, (width + growth, height + growth), angle)
        quad = clockwise_from_top_left(grown * np.array(scale, np.float32))
        detections.append(Detection(quad, score))
    return detections


def clockwise_from_top_left(corners: npt.NDArray[np.float32]) -> Quad:
    """Four corners of a convex quadrilateral in any order → clockwise, with the top left one of upright text first.

    Text is taken to run from left to right at less than 45° to the horizontal.
    """
    middle = corners.mean(axis=0)
    angles = np.arctan2(corners[:, 1] - middle[1], corners[:, 0] - middle[0])
    ordered = corners[np.argsort(angles)]  # clockwise, since y runs downwards
    # The first corner is the one from which the next side runs most nearly to the right.
    sides = np.roll(ordered, -1, axis=0) - ordered
    rightwards = sides[:, 0] / np.maximum(np.linalg.norm(sides, axis=1), 1e-6)
    return np.ascontiguousarray(np.roll(ordered, -int(rightwards.argmax()), axis=0), dtype=np.float32)


def _corners(centre: Sequence[float], size: Sequence[float], angle: float) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.boxPoints((centre, size, angle)), dtype=np.float32)


def _mean_inside(probabilities: npt.NDArray[np.float32], corners: npt.NDArray[np.float32]) -> float:
    height, width = probabilities.shape
    low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, [width - 1, height - 1])
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int), 0, [width - 1, height - 1]) + 1
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    cv2.fillPoly(mask, [np.round(corners - low).astype(np.int32)], 1)
    return float(cv2.mean(probabilities[low[1] : high[1], low[0] : high[0]], mask)[0])
