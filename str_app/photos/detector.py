"""The boundary between photographs and what finds text in them, beside `str_app.engines.base.Engine`."""

from __future__ import annotations

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
