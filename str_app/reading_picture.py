"""Pictures of where the network looked for a character."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from str_app.models.preprocessing import Preprocessing

Pixels = npt.NDArray[np.uint8]


def attention_overlay(
    crop: Pixels, attention: npt.NDArray[np.float32], preprocessing: Preprocessing, rotation: int = 0
) -> Pixels:
    """One character's attention laid over its crop.

    Args:
        crop: uint8 (H, W, 3), RGB.
        attention: (H', W') over the canvas, as in `Reading.attention`.
        preprocessing: of the model; tells how much of the canvas the crop covers.
        rotation: that of the `Reading`.

    Returns:
        uint8 (H, W, 3), or (W, H, 3) as it was read: bright and red where the network looked, dimmed elsewhere.
    """
    crop = np.rot90(crop, rotation // 90)
    height, width = crop.shape[:2]
    covered = preprocessing.covered_width(height, width)
    canvas_size = (preprocessing.canvas_width(covered), preprocessing.height)
    canvas: npt.NDArray[np.float64] = np.asarray(cv2.resize(attention, canvas_size), dtype=np.float64)
    heat: npt.NDArray[np.float64] = np.asarray(cv2.resize(canvas[:, :covered], (width, height)), dtype=np.float64)
    heat = heat[..., None] / max(float(heat.max()), 1e-9)
    red = np.array([255.0, 40.0, 0.0])
    return np.clip(crop * (0.35 + 0.35 * heat) + red * 0.45 * heat, 0, 255).astype(np.uint8, order="C")
