"""Crops of all sizes and formats, and what the offline reader says of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from str_app.reader import Reader

WORDS = "EXIT open Sale Hotel 24h Café parking Bank! taxi A1 STOP library The of international Metro 7 No.".split()


class Crop(NamedTuple):
    """An encoded crop and its offline reading as JSON."""

    data: bytes
    reading: dict[str, Any]


def crops(reader: Reader, count: int, seed: int = 0) -> list[Crop]:
    """Drawn words and the sample photographs, scaled at random, in every format."""
    random = np.random.default_rng(seed)
    photographs = [Image.open(path).convert("RGB") for path in sorted(Path("samples/images").iterdir())]
    encoded = []
    for _ in range(count):
        if random.random() < 0.4:
            image = photographs[random.integers(len(photographs))]
        else:
            ink, paper = (tuple(int(v) for v in random.integers(low, low + 100, 3)) for low in (0, 150))
            word = WORDS[random.integers(len(WORDS))]
            image = Image.new("RGB", (10 + 24 * len(word), 48), paper)
            ImageDraw.Draw(image).text((6, 4), word, fill=ink, font_size=36)
        scale = float(random.uniform(0.3, 2.0))
        image = image.resize((max(8, round(image.width * scale)), max(8, round(image.height * scale))))
        image_format = ("JPEG", "PNG", "WEBP", "BMP")[random.integers(4)]
        buffer = io.BytesIO()
        image.save(buffer, image_format)
        encoded.append(buffer.getvalue())
    readings = reader.recognize(encoded)
    return [Crop(data, reading.as_dict()) for data, reading in zip(encoded, readings, strict=True)]


def same(result: dict[str, Any], reading: dict[str, Any]) -> bool:
    """Whether a server's result is the offline reading: the same text, the confidence within two of its last digits."""
    return result.get("text") == reading["text"] and round(abs(result["confidence"] - reading["confidence"]), 4) <= 2e-4
