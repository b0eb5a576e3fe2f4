"""Contact sheets of samples and of scenes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from str_app.datasets.renderer.scene import Scene
from str_app.datasets.sample import Sample

CELL = (190, 78)  # pixels
PICTURE_HEIGHT = 58
COLUMNS = 8
SCENE_CELL = (480, 360)
SCENE_COLUMNS = 3


def contact_sheet(samples: Sequence[Sample]) -> Image.Image:
    """Samples in rows of eight, each above its label."""
    rows = -(-len(samples) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CELL[0], max(1, rows) * CELL[1]), "white")
    draw = ImageDraw.Draw(sheet)
    for i, sample in enumerate(samples):
        x, y = i % COLUMNS * CELL[0], i // COLUMNS * CELL[1]
        height, width = sample.image.shape[:2]
        size = (int(np.clip(round(width * PICTURE_HEIGHT / height), 4, CELL[0] - 4)), PICTURE_HEIGHT)
        sheet.paste(Image.fromarray(sample.image).resize(size, Image.Resampling.BICUBIC), (x, y))
        draw.text((x, y + PICTURE_HEIGHT + 2), sample.text, fill="black")
    return sheet


def scene_sheet(scenes: Sequence[Scene]) -> Image.Image:
    """Scenes in rows of three."""
    rows = -(-len(scenes) // SCENE_COLUMNS)
    sheet = Image.new("RGB", (SCENE_COLUMNS * SCENE_CELL[0], max(1, rows) * SCENE_CELL[1]), "white")
    for i, scene in enumerate(scenes):
        picture = Image.fromarray(scene.image)
        picture.thumbnail((SCENE_CELL[0] - 4, SCENE_CELL[1] - 4))
        sheet.paste(picture, (i % SCENE_COLUMNS * SCENE_CELL[0], i // SCENE_COLUMNS * SCENE_CELL[1]))
    return sheet
