"""A contact sheet of samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from str_app.datasets.sample import Sample

CELL = (190, 78)  # pixels
PICTURE_HEIGHT = 58
COLUMNS = 8


def contact_sheet(samples: Sequence[Sample], boxes: bool = False) -> Image.Image:
    """Samples in rows of eight, each above its label; `boxes` draws the boxes of the characters."""
    rows = -(-len(samples) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CELL[0], max(1, rows) * CELL[1]), "white")
    draw = ImageDraw.Draw(sheet)
    for i, sample in enumerate(samples):
        x, y = i % COLUMNS * CELL[0], i // COLUMNS * CELL[1]
        height, width = sample.image.shape[:2]
        size = (int(np.clip(round(width * PICTURE_HEIGHT / height), 4, CELL[0] - 4)), PICTURE_HEIGHT)
        sheet.paste(Image.fromarray(sample.image).resize(size, Image.Resampling.BICUBIC), (x, y))
        if boxes and sample.boxes is not None:
            scale = np.array([size[0] / width, size[1] / height] * 2)
            for k, box in enumerate(sample.boxes * scale):
                draw.rectangle([(x + box[0], y + box[1]), (x + box[2], y + box[3])], outline=("lime", "red")[k % 2])
        draw.text((x, y + PICTURE_HEIGHT + 2), sample.text, fill="black")
    return sheet
