"""Photographs of painted words, and a detector that knows where they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from str_app.photos.detector import Detection
from tests.str_app.fake_engine import paint

Place = tuple[int, int]  # x, y of the top left corner
GREY = 128


class KnownPlaces:
    """A detector that has been told the quadrilaterals."""

    name = "known"

    def __init__(self, quads: Sequence[object], unit: str = "word", score: float = 0.9) -> None:
        self.unit = unit
        self.detections = [Detection(np.array(quad, np.float32).reshape(4, 2), score) for quad in quads]

    def find(self, photo: np.ndarray) -> list[Detection]:
        return self.detections


class AtGrey:
    """Takes lines apart where they are grey."""

    def words(self, lines: Sequence[np.ndarray]) -> list[list[tuple[float, float, float, float]]]:
        found = []
        for line in lines:
            inside = np.concatenate([[False], (line != GREY).any(axis=(0, 2)), [False]])
            edges = np.flatnonzero(inside[1:] != inside[:-1]) / line.shape[1]
            found.append(
                [(left, right, 0.0, 1.0) for left, right in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)]
            )
        return found


def box(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def photo_of(
    words: Mapping[Place, str], size: tuple[int, int] = (240, 640), probability: float = 0.98
) -> tuple[np.ndarray, list[list[list[float]]]]:
    """A grey photograph with painted words at their places, and their quadrilaterals in the same order."""
    photo = np.full((*size, 3), GREY, np.uint8)
    quads = []
    for (x, y), text in words.items():
        crop = paint(text, probability)
        height, width = crop.shape[:2]
        photo[y : y + height, x : x + width] = crop
        quads.append(box(x, y, x + width, y + height))
    return photo, quads
