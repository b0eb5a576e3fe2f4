"""Images with a list of labels: TSV, CSV or JSON lines."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from str_app.datasets.converters.record import Record, Records, Skipped, existing_file, labelled_file
from str_app.datasets.text_files import IMAGE_NAMES, TEXT_NAMES, is_header, parse_json, read_lines

LISTS = ("labels.tsv", "labels.csv", "labels.jsonl", "metadata.csv", "metadata.jsonl", "gt.txt")
TRDG_LIST = "labels.txt"  # TextRecognitionDataGenerator; used where none of the others exists
ENDINGS = (".tsv", ".csv", ".jsonl", ".txt")

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_NAMES = "name the columns image and text in the first line"

Labelled = Iterator[tuple[str, str] | Skipped]


def read(source: Path, split: str | None = None) -> Records:
    """Samples of a list of image paths and labels, in its order; paths are relative to the list's folder.

    - `.tsv` and `.txt`: `path TAB text`, split on the first tab only; quotes belong to the text. A `.txt` file without
      any tab: `path SPACE text`, split on the first space.
    - `.csv`: comma-separated with the usual quoting, one record per line. The columns have names (`image`, `path`,
      `file`, `filename` or `file_name`; `text`, `label`, `word`, `words` or `transcription`), or there are two. If the
      header has these names between semicolons or tabs, those separate the columns.
    - `.jsonl`: one object per line with keys of these names.

    A header line is skipped. Labels are kept as written, blanks around them too. Lines that could be read in more than
    one way are skipped and reported, never guessed.

    Args:
        source: the list itself, or a folder with one of `LISTS` in it.
        split: the list's name without its ending (`train` → `train.tsv`).

    Raises:
        DataError: no list, several, or one that is not text.
    """
    if source.is_file():
        path = source
    else:
        names = [f"{split}{ending}" for ending in ENDINGS] if split else list(LISTS)
        if not split and not any((source / name).is_file() for name in names):
            names.append(TRDG_LIST)
        path = existing_file([source / name for name in names], f"{source}: the list of labels")
    parse = {".csv": _comma_separated, ".jsonl": _json_lines}.get(path.suffix.lower(), _tab_separated)
    labelled = list(parse(path, read_lines(path)))
    return Records(len(labelled), _records(path, labelled))


def _records(path: Path, labelled: list[tuple[str, str] | Skipped]) -> Iterator[Record | Skipped]:
    for item in labelled:
        yield item if isinstance(item, Skipped) else labelled_file(path.parent, *item)


def _tab_separated(path: Path, lines: list[str]) -> Labelled:
    has_tabs = path.suffix.lower() != ".txt" or any("\t" in line for line in lines)
    separator, separator_name = ("\t", "tab") if has_tabs else (" ", "space")
    first = True
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, found, text = line.partition(separator)
        if not found:
            yield Skipped(f"{path.name} line {number}", f"no {separator_name} between path and text")
        elif not (first and is_header([name, text])):
            yield name, text
        first = False


def _comma_separated(path: Path, lines: list[str]) -> Labelled:
    """Each line by itself, so that a quote that is never closed costs one line and not the rest of the file."""
    columns: tuple[int, int] | None = None
    width, advice = 2, ""
    delimiter = _delimiter(next((line for line in lines if line.strip()), ""))
    quote_opened = 0  # line of a quote not closed there
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        location = f"{path.name} line {number}"
        try:
            row = next(csv.reader([line], delimiter=delimiter, strict=True))
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                quote_opened = number
                yield Skipped(location, "a quote that is not closed on its line")
            else:
                yield Skipped(location, f"not CSV: {error}")
            continue
        if quote_opened and line.count('"') % 2:
            quote_opened = 0
            yield Skipped(location, "a quote that may close one opened on an earlier line")
            continue
        if columns is None:
            columns, width, is_first_record = _columns(row)
            if not is_first_record:
                continue
            advice = f", or {_NAMES}"
        if max(columns) >= len(row):
            yield Skipped(location, f"too few columns, separated by {_SEPARATORS[delimiter]}{advice}")
        elif len(row) > width:
            quote = f"put quotes around a text with {_SEPARATORS[delimiter]}"
            yield Skipped(location, f"too many columns: {quote}{advice}")
        else:
            yield row[columns[0]], row[columns[1]]


def _delimiter(header: str) -> str:
    """What separates the columns: semicolons or tabs only where the header's names show it."""
    for delimiter in _SEPARATORS:
        _, _, is_record = _columns([name.strip().strip('"') for name in header.split(delimiter)])
        if not is_record:
            return delimiter
    return ","


def _columns(row: list[str]) -> tuple[tuple[int, int], int, bool]:
    """Columns of image and text, the number of columns, and whether the first row is a record and not a header."""
    names = [cell.strip().lower() for cell in row]
    image = next((names.index(name) for name in IMAGE_NAMES if name in names), None)
    text = next((names.index(name) for name in TEXT_NAMES if name in names), None)
    if image is None or text is None:
        return (0, 1), 2, True
    return (image, text), len(row), False


def _json_lines(path: Path, lines: list[str]) -> Labelled:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        location = f"{path.name} line {number}"
        try:
            row = parse_json(line)
        except ValueError:
            yield Skipped(location, "not JSON")
            continue
        if not isinstance(row, dict):
            yield Skipped(location, "not a JSON object")
            continue
        name = next((row[key] for key in IMAGE_NAMES if key in row), None)
        text = next((row[key] for key in TEXT_NAMES if key in row), None)
        if isinstance(name, str) and isinstance(text, str):
            yield name, text
        else:
            yield Skipped(location, "no image or no text in the object")
