"""What every converter yields: records, or the reason why one was skipped."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

from str_app.datasets.folder import image_path, read_image_file
from str_app.datasets.sample import DataError

LINE_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # of str.splitlines


class Record(NamedTuple):
    """One labelled crop.

    Attributes:
        image: the encoded image.
        text: the label.
        identifier: the sample's name in the data set, unique there.
        boxes: (len(text), 4): x0, y0, x1, y1 of each character in pixels, if known.
        lexicon: the words its text is one of, if the data set has a lexicon.
    """

    image: bytes
    text: str
    identifier: str
    boxes: npt.NDArray[Any] | None = None
    lexicon: tuple[str, ...] = ()


class Skipped(NamedTuple):
    """A record that cannot be used: its image or line, and the reason in a few words that many records share."""

    location: str
    reason: str


class Records(NamedTuple):
    """The records of a data set, read lazily, and their number, if it is known beforehand."""

    total: int | None
    records: Iterator[Record | Skipped]


def label_problem(text: str) -> str | None:
    """Why `text` cannot be a label, or None. Tabs and blanks around it are allowed: labels are kept as they are."""
    if not text:
        return "empty label"
    if text.isspace():
        return "blank label"
    if text.isprintable():
        return None
    if any(character in LINE_BREAKS for character in text):
        return "line break in the label"
    if any(unicodedata.category(character) == "Cc" and character != "\t" for character in text):
        return "control character in the label"
    return None


def labelled_file(
    root: Path, name: str, text: str, lexicon: tuple[str, ...] = (), subfolders: Sequence[Path] = ()
) -> Record | Skipped:
    """The record of the image file `name` in `root`, or else in one of `subfolders`, which are folders in `root`."""
    problem = label_problem(text)
    if problem:
        return Skipped(name, problem)
    folder = next((folder for folder in (root, *subfolders) if (folder / name).is_file()), root) if subfolders else root
    try:
        path = image_path(folder, name)
        identifier = name if path == root / name else path.relative_to(root).as_posix()
        return Record(read_image_file(path), text, identifier, lexicon=lexicon)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        return Skipped(name, getattr(error, "strerror", None) or str(error))


def subfolders_of(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir())


def existing_file(candidates: list[Path], wanted: str) -> Path:
    """The only candidate that exists.

    Raises:
        DataError: none exists, or several do, so that a split must be chosen.
    """
    found = [path for path in candidates if path.is_file()]
    if not found:
        raise DataError(f"{wanted} not found: looked for {', '.join(str(path) for path in candidates)}")
    if len(found) > 1:
        raise DataError(f"{wanted}: there are {', '.join(path.name for path in found)}: choose one with --split")
    return found[0]
