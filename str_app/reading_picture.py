"""A sheet of readings: each crop, its text, and where the network looked for each character."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from str_app.models.preprocessing import Preprocessing
from str_app.reading import Reading

CROP_HEIGHT = 64
CROP_WIDTH = 256
FONT = cv2.FONT_HERSHEY_SIMPLEX
Pixels = npt.NDArray[np.uint8]


def attention_overlay(crop: Pixels, attention: npt.NDArray[np.float32], preprocessing: Preprocessing) -> Pixels:
    """One character's attention laid over its crop.

    Args:
        crop: uint8 (H, W, 3), RGB.
        attention: (H', W') over the canvas, as in `Reading.attention`.
        preprocessing: of the model; tells how much of the canvas the crop covers.

    Returns:
        uint8 (H, W, 3): bright and red where the network looked, dimmed elsewhere.
    """
    height, width = crop.shape[:2]
    covered = preprocessing.covered_width(height, width)
    canvas_size = (preprocessing.canvas_width(covered), preprocessing.height)
    canvas: npt.NDArray[np.float64] = np.asarray(cv2.resize(attention, canvas_size), dtype=np.float64)
    heat: npt.NDArray[np.float64] = np.asarray(cv2.resize(canvas[:, :covered], (width, height)), dtype=np.float64)
    heat = heat[..., None] / max(float(heat.max()), 1e-9)
    red = np.array([255.0, 40.0, 0.0])
    return np.clip(crop * (0.35 + 0.35 * heat) + red * 0.45 * heat, 0, 255).astype(np.uint8)


def draw_readings(
    crops: Sequence[Pixels], readings: Sequence[Reading], labels: Sequence[str], preprocessing: Preprocessing
) -> Pixels:
    """A sheet with one row a crop: crop, reading with confidence, and a strip of attention overlays.

    Args:
        crops: uint8 (H, W, 3), RGB.
        readings: with attention.
        labels: printed beside texts that differ from them; empty strings where unknown.
        preprocessing: of the model that read.

    Returns:
        uint8 (height, width, 3), RGB.
    """
    longest = max((len(reading.text) for reading in readings), default=0)
    tile = (96, 40)  # width, height of one overlay
    width = CROP_WIDTH + 260 + longest * (tile[0] + 6) + 20
    rows = []
    for crop, reading, label in zip(crops, readings, labels, strict=True):
        row = np.full((CROP_HEIGHT + 16, width, 3), 255, dtype=np.uint8)
        scale = min(CROP_HEIGHT / crop.shape[0], CROP_WIDTH / crop.shape[1])
        size = (max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale)))
        row[8 : 8 + size[1], 8 : 8 + size[0]] = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
        left = CROP_WIDTH + 20
        right = not label or label == reading.text
        colour = (0, 110, 40) if right else (190, 0, 0)
        _write(row, reading.text or "(nothing)", (left, 34), 0.7, colour)
        note = f"{reading.confidence:.1%}" if right else f"{reading.confidence:.1%}, is {label}"
        _write(row, note, (left, 62), 0.5, (90, 90, 90))
        if reading.attention is not None:
            for index, char in enumerate(reading.text):
                x = CROP_WIDTH + 260 + index * (tile[0] + 6)
                overlay = attention_overlay(crop, reading.attention[index], preprocessing)
                row[8 : 8 + tile[1], x : x + tile[0]] = cv2.resize(overlay, tile, interpolation=cv2.INTER_AREA)
                _write(row, char, (x + tile[0] // 2 - 6, 70), 0.6, (60, 60, 60))
        rows.append(row)
    return np.concatenate(rows) if rows else np.full((1, width, 3), 255, dtype=np.uint8)


def _write(image: Pixels, text: str, origin: tuple[int, int], size: float, colour: tuple[int, int, int]) -> None:
    # OpenCV's built-in font has ASCII only.
    shown = "".join(char if char.isascii() else "?" for char in text)
    cv2.putText(image, shown, origin, FONT, size, colour, 1, cv2.LINE_AA)
