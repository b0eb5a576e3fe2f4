"""Images with a list of labels: TSV, CSV or JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from str_app.datasets.converters.record import Reading, Record, Skipped, existing_file, labelled_file
from str_app.datasets.folder import read_lines

LISTS = ("labels.tsv", "labels.csv", "labels.jsonl", "metadata.csv", "metadata.jsonl", "gt.txt")
IMAGE_NAMES = ("image", "path", "file", "filename", "file_name")
TEXT_NAMES = ("text", "label", "word", "words", "transcription")

Labelled = Iterator[tuple[str, str] | Skipped]


def read(source: Path, split: str | None = None) -> Reading:
    """Samples of a list of image paths and labels, in its order; paths are relative to the list's folder.

    - `.tsv` and `.txt`: `path TAB text`, split on the first tab only; quotes belong to the text.
    - `.csv`: comma-separated with the usual quoting; the columns are named (`image`, `path`, `file`, `filename` or
      `file_name`; `text`, `label`, `word`, `words` or `transcription`) or are the first two.
    - `.jsonl`: one object a line with keys of these names.

    Args:
        source: the list itself, or a folder with one of `LISTS` in it.
        split: taken for the list's name without its ending (`train` → `train.tsv`).

    Raises:
        DataError: no list, several, or one that is not UTF-8.
    """
    if source.is_file():
        path = source
    else:
        names = [f"{split}{ending}" for ending in (".tsv", ".csv", ".jsonl", ".txt")] if split else list(LISTS)
        path = existing_file([source / name for name in names], f"{source}: the list of labels")
    lines = read_lines(path)
    parse = {".csv": _comma_separated, ".jsonl": _json_lines}.get(path.suffix.lower(), _tab_separated)
    # A CSV field may span lines, so only reading all of it would tell their number.
    total = None if parse is _comma_separated else sum(1 for line in lines if line.strip())
    return Reading(total, _records(path, parse(path, lines)))


def _records(path: Path, labelled: Labelled) -> Iterator[Record | Skipped]:
    for item in labelled:
        yield item if isinstance(item, Skipped) else labelled_file(path.parent, *item)


def _tab_separated(path: Path, lines: list[str]) -> Labelled:
    for number, line in enumerate(lines, 1):
        if line.strip():
            name, tab, text = line.partition("\t")
            yield (name, text) if tab else Skipped(f"{path.name} line {number}", "no tab between path and text")


def _comma_separated(path: Path, lines: list[str]) -> Labelled:
    rows = csv.reader(line + "\n" for line in lines)
    columns: tuple[int, int] | None = None
    for row in rows:
        if not row:
            continue
        if columns is None:
            named = [cell.strip().lower() for cell in row]
            image = next((named.index(name) for name in IMAGE_NAMES if name in named), None)
            text = next((named.index(name) for name in TEXT_NAMES if name in named), None)
            columns = (0, 1) if image is None or text is None else (image, text)
            if image is not None and text is not None:
                continue
        if max(columns) >= len(row):
            yield Skipped(f"{path.name} line {rows.line_num}", "too few columns")
        else:
            # The reader ends a field that spans lines with the line feed given to it.
            yield row[columns[0]], row[columns[1]]


def _json_lines(path: Path, lines: list[str]) -> Labelled:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path.name} line {number}"
        try:
            row = json.loads(line)
        except ValueError:
            yield Skipped(place, "not JSON")
            continue
        if not isinstance(row, dict):
            yield Skipped(place, "not a JSON object")
            continue
        name = next((row[key] for key in IMAGE_NAMES if key in row), None)
        text = next((row[key] for key in TEXT_NAMES if key in row), None)
        if isinstance(name, str) and isinstance(text, str):
            yield name, text
        else:
            yield Skipped(place, "no image or no text in the object")
