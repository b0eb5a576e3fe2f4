"""A photograph with its readings drawn in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from str_app.photos.reading import PhotoReading

SURE, DOUBTFUL = (0, 122, 61), (200, 80, 0)  # both keep 4.5:1 against white letters
MIN_LETTERS, MAX_LETTERS = 11, 40  # height of the labels, in pixels


def draw(photo: npt.NDArray[np.uint8], reading: PhotoReading) -> npt.NDArray[np.uint8]:
    """Every word outlined, with its text above: green, or orange where it is doubtful.

    Args:
        photo: uint8 (H, W, 3) RGB, upright.
        reading: of it.

    Returns:
        uint8 (H, W, 3) RGB.
    """
    image = Image.fromarray(photo)
    canvas = ImageDraw.Draw(image)
    thickness = max(1, round(max(image.size) / 640))
    for word in reading.words:
        colour = DOUBTFUL if word.doubtful else SURE
        canvas.polygon(word.quad, outline=colour, width=thickness)
    for word in reading.words:  # after all outlines, so that none crosses a label
        if word.text:
            height = float(np.hypot(word.quad[3][0] - word.quad[0][0], word.quad[3][1] - word.quad[0][1]))
            font = ImageFont.load_default(float(np.clip(0.55 * height, MIN_LETTERS, MAX_LETTERS)))
            left, top = min(x for x, _ in word.quad), min(y for _, y in word.quad)
            box = canvas.textbbox((left, top), word.text, font=font, anchor="ls")
            shift = max(0.0, 2 - box[1])  # a label above the photograph's edge moves into it
            canvas.rectangle(
                (box[0] - 1, box[1] - 1 + shift, box[2] + 1, box[3] + 1 + shift),
                DOUBTFUL if word.doubtful else SURE,
            )
            canvas.text((left, top + shift), word.text, fill=(255, 255, 255), font=font, anchor="ls")
    return np.array(image)
