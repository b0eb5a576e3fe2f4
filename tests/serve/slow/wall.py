"""A photograph with words in it, made of the samples; and the sample crops themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

SAMPLES = [Path(f"samples/images/{number:02}.jpg") for number in range(1, 11)]
PHOTO_SIZE = (1600, 1200)
# Where words stand in the photograph, by the sample they are made of.
WORDS = {6: (160, 180, 628, 304), 5: (820, 200, 1152, 312), 7: (300, 520, 628, 724), 9: (820, 640, 1440, 804)}
TURNED = 6  # EXIF: the upright picture is the stored one turned clockwise


def photograph(path: Path, **options: Any) -> Path:
    """Samples, four times as large, on a wall."""
    wall = Image.new("RGB", PHOTO_SIZE, (196, 190, 178))
    wall.paste((150, 140, 128), (0, 960, 1600, 1200))
    for number, (x0, y0, x1, y1) in WORDS.items():
        wall.paste(Image.open(SAMPLES[number - 1]).resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC), (x0, y0))
    if options.pop("turned", False):
        exif = Image.Exif()
        exif[0x0112] = TURNED
        # Chromium takes such resolutions for a density and calls the picture smaller.
        exif[0x011A] = exif[0x011B] = 144.0
        exif[0x0128] = 2
        exif.get_ifd(0x8769).update({0xA002: 600, 0xA003: 800})
        wall.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)
        assert ImageOps.exif_transpose(Image.open(path)).size == PHOTO_SIZE
    else:
        wall.save(path, quality=95)
    return path
