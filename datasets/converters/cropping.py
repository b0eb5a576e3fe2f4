"""Words cut out of whole pictures."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


def crop(picture: npt.NDArray[np.uint8], x0: float, y0: float, x1: float, y1: float, ending: str) -> bytes | None:
    """The part of a picture inside a box, encoded; None where fewer than 2 × 2 pixels of it lie in the picture.

    Args:
        picture: uint8 (H, W, 3), RGB.
        x0, y0, x1, y1: the box in pixels, rounded outwards.
        ending: `.png` keeps every pixel; `.jpg`, at quality 95, is for data sets of millions.
    """
    height, width = picture.shape[:2]
    left, top = max(0, int(np.floor(x0))), max(0, int(np.floor(y0)))
    right, bottom = min(width, int(np.ceil(x1))), min(height, int(np.ceil(y1)))
    if right - left < 2 or bottom - top < 2:
        return None
    part = cv2.cvtColor(picture[top:bottom, left:right], cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(ending, part, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return bytes(encoded)
