"""The boundary between photographs and what finds text in them, beside `str_app.engines.base.Engine`."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Quad = npt.NDArray[np.float32]  # (4, 2): x, y in pixels, clockwise from the top left of the first letter


class Detection(NamedTuple):
    """Text that a detector has found.

    Attributes:
        quad: float32 (4, 2), pixels of the photograph; clockwise from the top left of the first letter, as far as
            a detector can tell: text that runs upwards or stands on its head has its first corner elsewhere.
        score: 0 to 1, how sure the detector is that this is text. Not calibrated.
    """

    quad: Quad
    score: float


def shrink_ratio(height: int, width: int, longest_side: int) -> float:
    """By what a photograph is shrunk for its longer side to be at most `longest_side`; at most 1.

    A panorama, longer than 2:1, keeps as many pixels as a photograph of 2:1: words are no larger in it than elsewhere.
    """
    longer, shorter = max(height, width), min(height, width)
    return min(1.0, longest_side / longer * max(1.0, math.sqrt(longer / shorter / 2)))


class Detector(Protocol):
    """Finds text in photographs. Safe to share among threads.

    Attributes:
        name: for people, and in results.
        unit: what a detection is: one word, or a line of words, which `str_app.photos.words` takes apart.
    """

    name: str
    unit: Literal["word", "line"]

    def find(self, photo: npt.NDArray[np.uint8]) -> list[Detection]:
        """Everything found in a photograph, uint8 (H, W, 3) RGB, in no particular order."""
        ...
