"""Data sets that `FakeEngine` reads: the same samples as a folder, as an LMDB, and in memory."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from str_app.datasets.lmdb_writer import LmdbWriter
from str_app.datasets.sample import Sample, UnreadableSample
from tests.str_app.fake_engine import paint

Painted = tuple[str, str | None]  # the label, and what the picture says; None for a broken picture

WORDS: list[Painted] = [
    ("Cafe", "Cafe"),
    ("EXIT", "exit"),
    ("$4.54", "$4.54"),
    ("open", "oven"),
    ("!!", "11"),
    ("Broken", None),
    ("H&R", "HR"),
    ("seven", "seven"),
]


class PaintedSource:
    """A source in memory."""

    def __init__(self, words: Sequence[Painted] = WORDS, name: str = "painted", probability: float = 0.99) -> None:
        self.words = list(words)
        self.name = name
        self.probability = probability

    def __len__(self) -> int:
        return len(self.words)

    def label(self, index: int) -> str:
        return self.words[index][0]

    def identifier(self, index: int) -> str:
        return f"images/{index}.png"

    def __getitem__(self, index: int) -> Sample:
        label, says = self.words[index]
        if says is None:
            raise UnreadableSample(f"{self.name} record {index + 1}: broken")
        return Sample(paint(says, self.probability), label)


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def encoded(says: str | None) -> bytes:
    return b"\x89PNG\r\n\x1a\nbroken" if says is None else png(paint(says))


def write_folder(path: Path, words: Sequence[Painted] = WORDS) -> Path:
    (path / "images").mkdir(parents=True)
    lines = []
    for place, (label, says) in enumerate(words):
        (path / "images" / f"{place}.png").write_bytes(encoded(says))
        lines.append(f"images/{place}.png\t{label}\n")
    (path / "labels.tsv").write_text("".join(lines), encoding="utf-8")
    return path


def write_lmdb(path: Path, words: Sequence[Painted] = WORDS) -> Path:
    with LmdbWriter(path) as writer:
        for place, (label, says) in enumerate(words):
            writer.add(encoded(says), label, path=f"images/{place}.png")
    return path
