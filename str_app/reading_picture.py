"""Pictures of where the network looked for a character."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def attention_overlay(crop: Pixels, attention: npt.NDArray[np.float32], covered: float, rotation: int = 0) -> Pixels:
    """One character's attention laid over its crop.

    Args:
        crop: uint8 (H, W, 3), RGB.
        attention: (H', W') over the canvas, as in `Reading.attention`.
        covered, rotation: those of the `Reading`.

    Returns:
        uint8 (H, W, 3), or (W, H, 3) as it was read: bright and red where the network looked, dimmed elsewhere.
    """
    crop = np.rot90(crop, rotation // 90)
    height, width = crop.shape[:2]
    canvas = cv2.resize(attention, (max(width, round(width / covered)), height))
    heat: npt.NDArray[np.float64] = np.asarray(canvas[:, :width, None], dtype=np.float64)
    heat = heat / max(float(heat.max()), 1e-9)
    red = np.array([255.0, 40.0, 0.0])
    return np.clip(crop * (0.35 + 0.35 * heat) + red * 0.45 * heat, 0, 255).astype(np.uint8, order="C")
