"""Photographs with the place and text of every word: our own layout, ICDAR 2015's and Total-Text's."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from str_app.datasets.folder import image_path
from str_app.datasets.image_decoding import IMAGE_SUFFIXES
from str_app.datasets.sample import DataError
from str_app.datasets.text_files import parse_json, read_lines

DONT_CARE = ("###", "#", "*")  # transcriptions of what nobody can read: ICDAR's, Total-Text's, and that of some copies
_FARTHEST = 1e6  # coordinates beyond it, infinite ones and NaN are no pixels of a photograph
_TOTAL_TEXT = re.compile(
    r"x: \[\[([\d\s.,-]+)\]\], y: \[\[([\d\s.,-]+)\]\], ornt: .*, transcriptions: \[u?(['\"])(.*)\3\]"
)


@dataclass(frozen=True)
class LabelledWord:
    """A word of a labelled photograph.

    Attributes:
        polygon: its corners in pixels, at least three.
        text: None where it is to be ignored, because nobody can read it.
    """

    polygon: tuple[tuple[float, float], ...]
    text: str | None


@dataclass(frozen=True)
class LabelledPhoto:
    """A photograph and the words in it."""

    path: Path
    words: tuple[LabelledWord, ...]


def open_photos(folder: str | Path) -> list[LabelledPhoto]:
    """The labelled photographs of a folder, sorted by name.

    Either `labels.jsonl`, a line for each photograph: `{"image": "images/1.jpg", "words": [{"quad": [x0, y0, …],
    "text": "EXIT"}, …]}`, the quad also as points `[[x0, y0], …]`; or a text file beside each photograph, or anywhere
    below the folder: `gt_img_1.txt` as in ICDAR 2015, `poly_gt_img1.txt` as in Total-Text. The texts `###`, `#` and
    `*`, and `null` in `labels.jsonl`, mean that a word is to be ignored.

    Raises:
        DataError: no labels, a line that is none, or a photograph that is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    photos = list(_from_jsonl(folder) if (folder / "labels.jsonl").is_file() else _from_text_files(folder))
    if not photos:
        raise DataError(
            f"{folder}: no labelled photographs: neither labels.jsonl nor gt_NAME.txt or poly_gt_NAME.txt with pictures"
        )
    return sorted(photos, key=lambda photo: _natural(photo.path.name))


def _natural(name: str) -> list[tuple[int, str]]:
    """img_2 before img_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _from_jsonl(folder: Path) -> Iterator[LabelledPhoto]:
    labels = folder / "labels.jsonl"
    for number, line in enumerate(read_lines(labels), 1):
        if not line.strip():
            continue
        try:
            entry = parse_json(line)
        except ValueError as error:
            raise DataError(f"{labels} line {number}: not JSON ({error})") from None
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            raise DataError(f'{labels} line {number}: not an object with an "image", which is the path of a file')
        if not isinstance(entry.get("words"), list):
            raise DataError(f'{labels} line {number}: no list of "words"')
        words = []
        for place, word in enumerate(entry["words"], 1):
            try:
                words.append(_word_of(word))
            except ValueError as error:
                raise DataError(f"{labels} line {number}: word {place}: {error}") from None
        path = image_path(folder, entry["image"])
        try:
            found = path.is_file()
        except OSError as error:
            raise DataError(f"{labels} line {number}: {str(path)[:200]}: {error.strerror}") from None
        if not found:
            raise DataError(f"{labels} line {number}: {path}: no such file")
        yield LabelledPhoto(path, tuple(words))


def _word_of(fields: Any) -> LabelledWord:
    """A word of `labels.jsonl`."""
    if not isinstance(fields, dict) or not {"quad", "text"} <= fields.keys():
        raise ValueError('not an object with "quad" and "text"')
    quad, text = fields["quad"], fields["text"]
    if text is not None and not isinstance(text, str):
        raise ValueError(f"its text is {text!r:.40}: put quotes around it, or give null for a word to be ignored")
    if isinstance(quad, list) and all(isinstance(point, list) and len(point) == 2 for point in quad):
        quad = [number for point in quad for number in point]
    if not isinstance(quad, list) or any(type(number) not in (int, float) for number in quad):
        raise ValueError("its quad is neither a list of numbers [x0, y0, …] nor one of points [[x0, y0], …]")
    return _word(quad, text)


def _from_text_files(folder: Path) -> Iterator[LabelledPhoto]:
    pictures: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            pictures.setdefault(path.stem, []).append(path)
    for labels in sorted(folder.rglob("*gt_*.txt")):
        if labels.name.startswith("."):  # macOS adds ._NAME to each file
            continue
        prefix, _, stem = labels.stem.partition("gt_")
        if stem not in pictures:
            raise DataError(f"{labels}: no picture {stem} below {folder}")
        beside = [path for path in pictures[stem] if path.parent == labels.parent]
        found = beside or pictures[stem]
        if len(found) > 1:
            raise DataError(f"{labels}: {found[0]} and {found[1]} both may be its picture: give the folder of one set")
        parse = _parse_total_text if prefix == "poly_" else _parse_icdar
        yield LabelledPhoto(found[0], tuple(_parsed_lines(labels, parse)))


def _parsed_lines(labels: Path, parse: Callable[[str], LabelledWord]) -> Iterator[LabelledWord]:
    for number, line in enumerate(read_lines(labels), 1):
        if line.strip():
            try:
                yield parse(line.strip())
            except ValueError as error:
                raise DataError(f"{labels} line {number}: {error}") from None


def _parse_icdar(line: str) -> LabelledWord:
    fields = line.split(",", 8)  # a text may contain commas
    if len(fields) < 9:
        raise ValueError("not eight numbers and a text with commas between them")
    return _word(fields[:8], fields[8])


def _parse_total_text(line: str) -> LabelledWord:
    match = _TOTAL_TEXT.fullmatch(line)
    if match is None:
        raise ValueError("not `x: [[…]], y: [[…]], ornt: […], transcriptions: ['…']`")
    xs, ys = match[1].replace(",", " ").split(), match[2].replace(",", " ").split()
    if len(xs) != len(ys):
        raise ValueError(f"{len(xs)} x coordinates and {len(ys)} y coordinates")
    return _word([number for pair in zip(xs, ys, strict=True) for number in pair], match[4])


def _word(numbers: Iterable[str | float], text: str | None) -> LabelledWord:
    try:
        values = [float(number) for number in numbers]
    except OverflowError:
        values = [math.inf]
    if not all(abs(value) <= _FARTHEST for value in values):
        raise ValueError("its coordinates are no pixels of a photograph")
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"{len(values)} numbers are not the corners of a polygon")
    polygon = tuple(zip(values[::2], values[1::2], strict=True))
    return LabelledWord(polygon, None if text in DONT_CARE else text)
