"""What is read in bulk: folders, LMDBs, Parquet files, WebDataset tars and lists, cut into parts of about one size.

A part is a small picklable object: another process, or another machine that sees the same files, opens it by its path.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from str_app.datasets.image_decoding import IMAGE_SUFFIXES
from str_app.datasets.lmdb_source import LMDB_SUFFIXES, LmdbSource
from str_app.datasets.sample import UnreadableSample
from str_app.datasets.text_files import parse_json
from str_app.errors import ImageError, StrAppError

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
LIST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
REGIONS = "regions"  # the column, or the field in the JSON beside an image
KINDS = "a folder, an LMDB, .parquet, .tar, .tar.gz, .csv, .tsv or .jsonl"


class Item(NamedTuple):
    """One image to read.

    Attributes:
        id: names it in the output.
        image: encoded bytes, a file, or why there is neither.
        regions: words in it, see `str_app.inputs.regions.parse_region`; None: the image is the crop of one word.
    """

    id: str
    image: bytes | Path | ImageError
    regions: Sequence[Any] | None = None


def listed_regions(value: Any, place: str) -> list[Any] | ImageError | None:
    """The regions of an item, given as a list or as JSON; None if there are none, or why they cannot be used."""
    if isinstance(value, str):
        try:
            value = parse_json(value) if value.strip() else None
        except ValueError:
            return ImageError("bad_region", f"{place}: {REGIONS!r} is not valid JSON")
    if value is not None and not isinstance(value, list):
        return ImageError("bad_region", f"{place}: {REGIONS!r} is not a list of regions")
    return value


class Part(Protocol):
    """Some consecutive items of one input.

    Attributes:
        count: number of items; an estimate where it is known only after reading.
    """

    @property
    def count(self) -> int: ...

    def items(self) -> Iterator[Item]:
        """The items, in an order that does not change."""


class Input(NamedTuple):
    """One folder or file, cut into parts.

    Attributes:
        name: the path as it was given; ids of its items begin with it.
        kind: for the manifest.
        fingerprint: changes if files were added, removed, renamed or have another size.
        parts: in order; none lacks an item or has one twice.
    """

    name: str
    kind: str
    fingerprint: str
    parts: list[Part]


@dataclass(frozen=True)
class Columns:
    """Names of columns in Parquet files and lists; None: found by their usual names.

    Attributes:
        image: encoded bytes, paths relative to the file's folder, or `{bytes, path}` as Hugging Face's data sets have.
        id: what the output calls an item.
    """

    image: str | None = None
    id: str | None = None


USUAL_COLUMNS = Columns()


@dataclass(frozen=True)
class FilesPart:
    """Image files below one folder."""

    name: str
    root: Path
    files: tuple[str, ...]

    @property
    def count(self) -> int:
        """See `Part`."""
        return len(self.files)

    def items(self) -> Iterator[Item]:
        """See `Part`."""
        for file in self.files:
            yield Item(f"{self.name}/{file}" if file else self.name, self.root / file)


@dataclass(frozen=True)
class LmdbPart:
    """Records `start` … `stop - 1` of an LMDB."""

    name: str
    path: Path
    start: int
    stop: int

    @property
    def count(self) -> int:
        """See `Part`."""
        return self.stop - self.start

    def items(self) -> Iterator[Item]:
        """See `Part`."""
        source = LmdbSource(self.path)
        for index in range(self.start, self.stop):
            try:
                image: bytes | ImageError = source.image_bytes(index)
            except UnreadableSample as error:
                image = ImageError("not_readable", str(error))
            yield Item(f"{self.name}/{source.identifier(index)}", image)


def open_inputs(paths: Iterable[str | Path], shard_size: int, columns: Columns = USUAL_COLUMNS) -> list[Input]:
    """List everything that is to be read.

    Args:
        paths: folders or files. In a folder, image files, LMDBs, Parquet files and tars are found at any depth.
        shard_size: most items of a part, as far as the input can be cut: a tar is always one part.
        columns: of Parquet files and lists.

    Raises:
        StrAppError, DataError: a path that does not exist or cannot be used, without anything to read, or that is
            another one or lies in it: rows would be there twice.
    """
    paths = list(paths)
    _refuse_overlap(paths)
    return [opened for path in paths for opened in _open(str(path).rstrip("/") or "/", shard_size, columns)]


def _refuse_overlap(paths: Iterable[str | Path]) -> None:
    given: dict[Path, str | Path] = {}
    for path in paths:
        if given.setdefault(place := Path(path).resolve(), path) is not path:
            raise StrAppError(f"{path}: given twice: its images would be read twice")
    for place, path in given.items():
        for folder in place.parents:
            if folder in given:
                raise StrAppError(
                    f"{path}: lies in {given[folder]}, which is given too: its images would be read twice"
                )


def _open(name: str, shard_size: int, columns: Columns) -> Iterator[Input]:
    path = Path(name).absolute()
    if not path.exists():
        raise StrAppError(f"{name}: no such file or folder")
    if path.is_file() or (path / "data.mdb").is_file():
        yield _open_one(name, path, shard_size, columns)
        return
    inputs = []
    images: list[tuple[str, int]] = []
    for folder, folders, files in os.walk(path, onerror=_refuse):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        below = Path(folder).relative_to(path).as_posix()
        prefix = "" if below == "." else f"{below}/"
        if "data.mdb" in files:
            inputs.append(_open_one(f"{name}/{below}", Path(folder), shard_size, columns))
            folders.clear()
            continue
        for file in sorted(each for each in files if not each.startswith(".")):
            if file.lower().endswith(IMAGE_SUFFIXES):
                images.append((prefix + file, _size_of(Path(folder) / file)))
            elif file.lower().endswith((".parquet", *TAR_SUFFIXES, *LMDB_SUFFIXES)):
                inputs.append(_open_one(f"{name}/{prefix}{file}", Path(folder) / file, shard_size, columns))
    if images:
        images.sort()
        parts: list[Part] = [
            FilesPart(name, path, tuple(file for file, _ in images[start : start + shard_size]))
            for start in range(0, len(images), shard_size)
        ]
        yield Input(name, "folder", fingerprint_of(images), parts)
    if not images and not inputs:
        raise StrAppError(f"{name}: nothing to read in this folder: expected images, LMDBs, .parquet or .tar files")
    yield from inputs


def _refuse(error: OSError) -> None:
    raise StrAppError(f"{error.filename}: {error.strerror}")


def _open_one(name: str, path: Path, shard_size: int, columns: Columns) -> Input:
    lower = path.name.lower()
    if path.is_dir() or lower.endswith(LMDB_SUFFIXES):
        source = LmdbSource(path)
        size = (path / "data.mdb" if path.is_dir() else path).stat().st_size
        parts: list[Part] = [LmdbPart(name, path, start, stop) for start, stop in ranges(len(source), shard_size)]
        return Input(name, "lmdb", fingerprint_of([(len(source), size)]), parts)
    if lower.endswith(".parquet"):
        from str_app.bulk.tables import open_parquet

        return open_parquet(name, path, shard_size, columns)
    if lower.endswith(LIST_SUFFIXES):
        from str_app.bulk.tables import open_list

        return open_list(name, path, shard_size, columns)
    if lower.endswith(TAR_SUFFIXES):
        from str_app.bulk.archives import open_tar

        return open_tar(name, path)
    if lower.endswith(IMAGE_SUFFIXES):
        return Input(name, "image", fingerprint_of([path.stat().st_size]), [FilesPart(name, path, ("",))])
    raise StrAppError(f"{name}: cannot be read in bulk: give {KINDS}")


def _size_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # a link to nothing: its row will say so
        return -1


def ranges(count: int, size: int) -> list[tuple[int, int]]:
    """`count` items cut into ranges of `size`; one empty range where there are none, so that it has its output file."""
    return [(start, min(start + size, count)) for start in range(0, count, size)] or [(0, 0)]


def fingerprint_of(values: Iterable[Any]) -> str:
    """A short hash of anything whose `repr` says what it is."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(f"{value!r}\n".encode())
    return digest.hexdigest()[:16]
