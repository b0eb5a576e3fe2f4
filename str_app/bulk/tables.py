"""Parquet files, and lists of image files as CSV, TSV or JSON lines."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from str_app.bulk.inputs import REGIONS, Columns, Input, Item, Part, fingerprint_of, listed_regions, ranges
from str_app.datasets.folder import image_path
from str_app.datasets.image_decoding import IMAGE_SUFFIXES
from str_app.datasets.text_files import IMAGE_NAMES, parse_json
from str_app.engines.graph_folder import sha256_of
from str_app.errors import ImageError, StrAppError

ID_NAMES = ("id", "__key__")
_SEPARATORS = {",": "comma", "\t": "tab"}
_ROWS_AT_ONCE = 32  # of a Parquet file in memory: a few bytes of it may stand for the same large value in every row


@dataclass(frozen=True)
class ParquetPart:
    """Rows `start` … `stop - 1` of a Parquet file; `columns` are names that it has."""

    name: str
    path: Path
    start: int
    stop: int
    columns: Columns

    @property
    def count(self) -> int:
        """See `Part`."""
        return self.stop - self.start

    def items(self) -> Iterator[Item]:
        """See `Part`. Rows that cannot be read, and those after them in their group, are items with errors."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            wanted = [self.columns.image, self.columns.id, REGIONS]
            present = [column for column in wanted if column in file.schema_arrow.names]
            row = 0
            for group in range(file.num_row_groups):
                end = row + file.metadata.row_group(group).num_rows
                if end > self.start and row < self.stop:
                    batches = file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=present)
                    yield from self._items_of(batches, row, min(end, self.stop))
                row = end

    def _items_of(self, batches: Iterator[Any], row: int, end: int) -> Iterator[Item]:
        """The items of a group's batches, whose first row is `row`, from `start` on up to `end`."""
        import pyarrow as pa

        while row < end:
            try:
                batch = next(batches)
            except (OSError, pa.ArrowException, StopIteration) as error:
                if getattr(error, "errno", None):  # of the system, which another attempt may not meet
                    raise
                reason = str(error) or "the group ends before"
                yield from (self._lost(number, reason) for number in range(max(row, self.start) + 1, end + 1))
                return
            for offset in range(max(self.start - row, 0), min(end - row, batch.num_rows)):
                yield self._item(row + offset + 1, batch.slice(offset, 1))
            row += batch.num_rows

    def _item(self, number: int, rows: Any) -> Item:
        try:
            (values,) = rows.to_pylist()
        except UnicodeDecodeError as error:
            return self._lost(number, str(error))
        return _item(self.name, self.path.parent, number, values, self.columns)

    def _lost(self, number: int, reason: str) -> Item:
        return Item(f"{self.name}#{number}", ImageError("truncated", f"row {number} is damaged: {reason}"))


def open_parquet(name: str, path: Path, shard_size: int, columns: Columns) -> Input:
    """A Parquet file by ranges of rows.

    Raises:
        StrAppError: not a Parquet file, or without a column of images.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
    except (OSError, pa.ArrowException) as error:
        raise StrAppError(f"{name}: not a Parquet file, or damaged: {error}") from error
    columns = _found(name, columns, schema.names)
    kind = schema.field(columns.image).type
    if not any(check(kind) for check in (_is_binary, _is_text, pa.types.is_struct)):
        raise StrAppError(f"{name}: column {columns.image!r} holds {kind}: neither encoded images nor paths")
    parts: list[Part] = [ParquetPart(name, path, start, stop, columns) for start, stop in ranges(rows, shard_size)]
    return Input(name, "parquet", fingerprint_of([(rows, path.stat().st_size, columns)]), parts)


def _is_binary(kind: Any) -> bool:
    import pyarrow.types as types

    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    return (
        types.is_string(kind)
        or types.is_large_string(kind)
        or (types.is_dictionary(kind) and _is_text(kind.value_type))
    )


@dataclass(frozen=True)
class ListPart:
    """`count` records of a list from byte `offset` on; `line` is the number of the first."""

    name: str
    path: Path
    offset: int
    line: int
    count: int
    columns: Columns
    header: tuple[str, ...]

    def items(self) -> Iterator[Item]:
        """See `Part`."""
        with _Lines(self.path, self.offset, self.line) as lines:
            for _ in range(self.count):
                number = lines.number
                values = _next_record(lines, self.header)
                assert values is not None
                yield _item(self.name, self.path.parent, number, values, self.columns)


def open_list(name: str, path: Path, shard_size: int, columns: Columns) -> Input:
    """A list of image files. CSV and TSV whose first line begins with an image have no header, and paths come first.

    Raises:
        StrAppError: no column of images.
    """
    content = sha256_of(path)
    with _Lines(path, 0, 1) as lines:
        header: tuple[str, ...] = ()
        if not lines.is_json:
            first = next(_cells(lines), [])
            usual = [cell.strip().lower() for cell in first]
            if columns.image in first or any(cell in IMAGE_NAMES for cell in usual):
                header = tuple(cell.strip() for cell in first)
                columns = _found(name, columns, header)
            elif columns.image or columns.id:
                raise StrAppError(f"{name}: no column {columns.image or columns.id!r} in its first line: {first}")
            elif first and not _is_image(path.parent, first[0]):
                line, mark = lines.delimiter.join(first), _SEPARATORS[lines.delimiter]
                raise StrAppError(
                    f"{name}: the first line, {line!r}, is neither a header with an image column nor starts with an "
                    f"image path; name the column with --image-column (fields end at a {mark})"
                )
            else:
                header, columns = ("image", *(f"column {k}" for k in range(2, len(first) + 1))), Columns("image")
                lines.rewind()
        marks = [(lines.offset, lines.number)]  # where each part begins
        count = 0
        keys: dict[str, None] = {}  # in their order
        while (record := _next_record(lines, header)) is not None:
            count += 1
            if count % shard_size == 0:
                marks.append((lines.offset, lines.number))
            if lines.is_json and list(record) != ["error"]:
                keys |= dict.fromkeys(record)
        if lines.is_json:
            columns = _found(name, columns, list(keys)) if keys else Columns("image")
    parts: list[Part] = [
        ListPart(name, path, *marks[start // shard_size], stop - start, columns, header)
        for start, stop in ranges(count, shard_size)
    ]
    return Input(name, "list", fingerprint_of([content, columns]), parts)


def _is_image(folder: Path, cell: str) -> bool:
    try:
        return cell.strip().lower().endswith(IMAGE_SUFFIXES) or image_path(folder, cell.strip()).is_file()
    except OSError:  # too long for a name
        return False


class _Lines:
    """Lines of a UTF-8 file from a byte offset on; knows where the next one begins."""

    def __init__(self, path: Path, offset: int, number: int) -> None:
        self.is_json = path.suffix.lower() in (".jsonl", ".ndjson")
        self.delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        self.offset, self.number = offset, number
        self.path = path
        self._file = path.open("rb")
        self._file.seek(offset)

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline()
        if not line:
            raise StopIteration
        self.offset += len(line)
        self.number += 1
        try:
            return line.decode("utf-8-sig" if self.number == 2 else "utf-8")
        except UnicodeDecodeError as error:
            raise StrAppError(f"{self.path} line {self.number - 1}: not UTF-8: save the file as UTF-8") from error

    def rewind(self) -> None:
        """Back to the first line."""
        self._file.seek(0)
        self.offset, self.number = 0, 1


def _cells(lines: _Lines) -> Iterator[list[str]]:
    """Records of CSV, or of TSV, where a quote is a character like any other."""
    usual = csv.field_size_limit(2**31 - 1)  # regions of a page
    tabs = lines.delimiter == "\t"
    first = lines.number
    try:
        # strict: without it a quote that is not closed takes the rest of the file as one field.
        yield from csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(lines, strict=True)
    except csv.Error as error:
        raise StrAppError(f"{lines.path} lines {first} to {lines.number - 1}: {error}") from None
    finally:
        csv.field_size_limit(usual)  # it is one for all of the process


def _next_record(lines: _Lines, header: Sequence[str]) -> Mapping[str, Any] | None:
    """The next record that is not blank, or what is wrong with it under `error`; None at the end."""
    if lines.is_json:
        for line in lines:
            if line.strip():
                try:
                    record = parse_json(line)
                except ValueError as error:
                    return {"error": f"not valid JSON: {error}"}
                return record if isinstance(record, dict) else {"error": "not a JSON object"}
        return None
    for cells in _cells(lines):
        if cells:
            return dict(zip(header, cells, strict=False))
    return None


def _found(name: str, columns: Columns, names: Sequence[str]) -> Columns:
    """The columns with the names that this file has."""
    lower = {each.lower(): each for each in reversed(names)}
    image = columns.image or next((lower[each] for each in ("image", *IMAGE_NAMES) if each in lower), None)
    if image is None or image not in names:
        what = f"no column {image!r}" if image else "no column of images"
        raise StrAppError(f"{name}: {what}; its columns are {', '.join(names)}: name one with --image-column")
    if columns.id is not None and columns.id not in names:
        raise StrAppError(f"{name}: no column {columns.id!r}; its columns are {', '.join(names)}")
    return Columns(image, columns.id or next((each for each in ID_NAMES if each in names), None))


def _item(name: str, folder: Path, number: int, values: Mapping[str, Any], columns: Columns) -> Item:
    """A row of a table or record of a list → an item; `number` counts from 1."""
    stored = values.get(columns.image or "")
    given = values.get(columns.id) if columns.id is not None else None
    identity = f"{name}#{number}" if given in (None, "") else str(given)
    if isinstance(stored, Mapping):
        if given in (None, "") and stored.get("path"):
            identity = str(stored["path"])
        stored = stored.get("bytes") or stored.get("path")
    image: bytes | Path | ImageError
    if isinstance(stored, bytes):
        image = stored
    elif isinstance(stored, str) and stored:
        image = image_path(folder, stored)
        identity = stored if given in (None, "") else identity
    else:
        reason = values.get("error") or f"no value in column {columns.image!r}"
        image = ImageError("no_image", f"row {number}: {reason}")
    regions = listed_regions(values.get(REGIONS), f"row {number}")
    return Item(identity, regions) if isinstance(regions, ImageError) else Item(identity, image, regions)
