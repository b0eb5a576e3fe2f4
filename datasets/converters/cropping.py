"""Crops words out of whole images."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


def crop(image: npt.NDArray[np.uint8], x0: float, y0: float, x1: float, y1: float, ending: str) -> bytes | None:
    """The part of an image inside a box, encoded; None if fewer than 2 × 2 pixels of the box are inside the image.

    Args:
        image: uint8 (H, W, 3), RGB.
        x0, y0, x1, y1: the box in pixels, rounded outwards.
        ending: `.png` is lossless; `.jpg`, at quality 95, is for data sets of millions.
    """
    height, width = image.shape[:2]
    left, top = max(0, int(np.floor(x0))), max(0, int(np.floor(y0)))
    right, bottom = min(width, int(np.ceil(x1))), min(height, int(np.ceil(y1)))
    if right - left < 2 or bottom - top < 2:
        return None
    part = cv2.cvtColor(image[top:bottom, left:right], cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(ending, part, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return bytes(encoded)
