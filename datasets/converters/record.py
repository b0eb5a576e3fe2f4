"""What every converter hands over, one sample after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

from str_app.datasets.sample import DataError


class Record(NamedTuple):
    """One labelled crop.

    Attributes:
        image: the encoded image.
        text: the label.
        identifier: what the sample is called where it comes from, unique there.
        boxes: (len(text), 4): x0, y0, x1, y1 of each character in pixels, where known.
        lexicon: the words that its reading may be chosen from, where the data set gives some.
    """

    image: bytes
    text: str
    identifier: str
    boxes: npt.NDArray[Any] | None = None
    lexicon: tuple[str, ...] = ()


class Skipped(NamedTuple):
    """A record that cannot be used: where it stands and, in few words that repeat, why."""

    place: str
    reason: str


class Reading(NamedTuple):
    """The records of a data set, read lazily, and how many are expected, where that is known beforehand."""

    total: int | None
    records: Iterator[Record | Skipped]


def labelled_file(root: Path, name: str, text: str, lexicon: tuple[str, ...] = ()) -> Record | Skipped:
    """The record of the image file `name` in `root`."""
    if not text:
        return Skipped(name, "empty label")
    try:
        image = (root / name).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        return Skipped(name, getattr(error, "strerror", None) or str(error))
    return Record(image, text, name, lexicon=lexicon)


def existing_file(candidates: list[Path], wanted: str) -> Path:
    """The only candidate that exists.

    Raises:
        DataError: none exists, or several do and only a split can tell which is meant.
    """
    found = [path for path in candidates if path.is_file()]
    if not found:
        raise DataError(f"{wanted} not found: looked for {', '.join(str(path) for path in candidates)}")
    if len(found) > 1:
        raise DataError(f"{wanted}: there are {', '.join(path.name for path in found)}: choose one with --split")
    return found[0]
