"""Opens data sets by their path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from str_app.datasets.converters.labelled_folder import ENDINGS, LISTS, TRDG_LIST
from str_app.datasets.folder import LABELS, FolderSource
from str_app.datasets.image_decoding import IMAGE_SUFFIXES
from str_app.datasets.lmdb_source import LmdbSource
from str_app.datasets.sample import DataError
from str_app.datasets.shards import ShardedSource, has_shards

AnySource = FolderSource | LmdbSource | ShardedSource


def open_source(path: str | Path) -> AnySource:
    """Open an LMDB, a folder of crops, or a folder of shards.

    Raises:
        DataError: no such path, or none of them; the data sets below `path`, if any, are named.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if (path / LABELS).is_file():
        return FolderSource(path)
    if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
        raise DataError(f"{path}: an image, not a data set: give an LMDB, or a folder with images and {LABELS}")
    if path.name == LABELS:
        raise DataError(f"{path}: a list of labels, not a data set: give its folder, {path.parent}")
    if path.suffix.lower() in ENDINGS and path.is_file():
        raise DataError(f"{path}: a list, not a data set: {_conversion(path)}")
    if path.is_file() or (path / "data.mdb").is_file():
        return LmdbSource(path)
    if has_shards(path):
        return ShardedSource(path)
    below = ", ".join(str(source) for source in _sources_below(path))
    hint = f"; give one of the data sets in it: {below}" if below else _other_list(path)
    raise DataError(f"{path}: neither an LMDB (data.mdb) nor a folder of crops ({LABELS}){hint}")


def find_sources(directory: str | Path) -> list[Path]:
    """`directory` if it is a data set or a file, such as an LMDB without a folder, else all data sets below it by path.

    Raises:
        DataError: no such folder, or no data set in it.
    """
    directory = Path(directory)
    if _is_source(directory) or directory.is_file():
        return [directory]
    if not directory.is_dir():
        raise DataError(f"{directory}: no such folder")
    sources = list(_sources_below(directory))
    if not sources:
        expected = f"expected LMDBs (data.mdb) or folders with {LABELS}{_other_list(directory)}"
        raise DataError(f"{directory}: no data set here or below: {expected}")
    return sources


def _other_list(folder: Path) -> str:
    """What to do with a list in `folder` that has to be converted; empty where there is none."""
    name = next((name for name in (*LISTS, TRDG_LIST) if (folder / name).is_file()), None)
    return f"; for its {name}, {_conversion(folder)}" if name else ""


def _conversion(source: Path) -> str:
    return f"`str-app convert folder {source} --out NAME.lmdb` makes a data set of it"


def _sources_below(directory: Path) -> Iterator[Path]:
    for entry in sorted(directory.iterdir()):
        if entry.name.startswith("."):  # hidden folders are LMDBs that are being written
            continue
        if _is_source(entry):
            yield entry
        elif entry.is_dir() and not entry.is_symlink():  # links may form circles
            yield from _sources_below(entry)


def _is_source(path: Path) -> bool:
    return (path / LABELS).is_file() or (path / "data.mdb").is_file() or has_shards(path)
