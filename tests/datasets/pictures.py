"""Small pictures and data sets that the tests write themselves."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from str_app.datasets.lmdb_source import LmdbSource
from str_app.datasets.sample import UnreadableSample

ODD_LABELS = ["TO", 'say "hi"', "tab\there", "Café", "日本", "it's", "a,b", " x ", "#1", "x" * 200]


def picture(number: int = 0, height: int = 16, width: int = 40) -> np.ndarray:
    """uint8 (height, width, 3), a different one for each number."""
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(array: np.ndarray, image_format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, image_format, **options)
    return stream.getvalue()


def write_folder(path: Path, labels: list[str]) -> Path:
    """`images/1.png` … with `labels.tsv`."""
    (path / "images").mkdir(parents=True)
    for number in range(1, len(labels) + 1):
        (path / "images" / f"{number}.png").write_bytes(encoded(picture(number)))
    lines = [f"images/{number}.png\t{label}\n" for number, label in enumerate(labels, 1)]
    (path / "labels.tsv").write_text("".join(lines), encoding="utf-8", newline="\n")
    return path


def unreadable_records(path: Path) -> list[str]:
    """One message for each sample of an LMDB that is missing or cannot be decoded."""
    source = LmdbSource(path)
    messages: list[str] = []
    for index in range(len(source)):
        try:
            source[index]
        except UnreadableSample as error:
            messages.append(str(error))
    return messages
