"""Text files that people write: any usual encoding and line end, and errors that name the file and the line."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

from str_app.datasets.sample import DataError

# Column names of a header line in a list of labels.
IMAGE_NAMES = ("image", "path", "file", "filename", "file_name")
TEXT_NAMES = ("text", "label", "word", "words", "transcription")


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, with or without a byte-order mark, or of a UTF-16 file with one.

    Raises:
        DataError: no such file, another encoding, or a NUL character.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    encoding = "utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-16":
            raise DataError(
                f"{path}: damaged UTF-16 ({error.reason} at byte {error.start}): save it as UTF-8"
            ) from None
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} line {line}: not UTF-8 ({error.reason} at byte {error.start}): save the file as UTF-8"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path} line {line}: a NUL character, as in UTF-16 without its mark: save the file as UTF-8")
    return text


def read_lines(path: str | Path) -> list[str]:
    """Lines of a text file, ended by LF, CRLF or, in a file without any LF, by CR.

    Other characters do not end a line: labels may contain Unicode's line and paragraph separators.

    Raises:
        DataError: see `read_text`.
    """
    content = read_text(path)
    if "\n" not in content:
        return content.split("\r")
    return [line.removesuffix("\r") for line in content.split("\n")]


def read_tab_separated(path: str | Path) -> list[tuple[str, str]]:
    """Lines of `key TAB text`, split on the first tab only: everything after it, quotes too, belongs to the text.

    Blank lines and a header line (`image TAB text` or the like) are skipped.

    Raises:
        DataError: see `read_text`; or a line without a tab.
    """
    pairs: list[tuple[str, str]] = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        key, tab, text = line.partition("\t")
        if not tab:
            raise DataError(f"{path} line {number}: no tab between path and text")
        if pairs or not is_header([key, text]):
            pairs.append((key, text))
    return pairs


def is_header(cells: list[str]) -> bool:
    """Whether two cells are column names of a list of labels, in either order."""
    first, second = (cell.strip().lower() for cell in cells)
    return (first in IMAGE_NAMES and second in TEXT_NAMES) or (first in TEXT_NAMES and second in IMAGE_NAMES)


def parse_json(text: str | bytes) -> Any:
    """The value of JSON that a stranger may have written.

    Raises:
        ValueError: not JSON, or nested deeper than Python's stack.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from error


def read_json_object(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file, which may be damaged.

    Raises:
        DataError: see `read_text`; or not JSON; or another value than an object.
    """
    text = read_text(path)
    try:
        value = parse_json(text)
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: not a JSON object")
    return value
