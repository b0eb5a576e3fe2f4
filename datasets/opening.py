"""From a path to a source, whatever kind of data set lies there."""

from __future__ import annotations

from pathlib import Path

from str_app.datasets.folder import LABELS, FolderSource
from str_app.datasets.lmdb_source import LmdbSource
from str_app.datasets.sample import DataError

AnySource = FolderSource | LmdbSource


def open_source(path: str | Path) -> AnySource:
    """Open an LMDB or a folder of crops.

    Raises:
        DataError: nothing there, or neither of the two.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if (path / LABELS).is_file():
        return FolderSource(path)
    if path.is_file() or (path / "data.mdb").is_file():
        return LmdbSource(path)
    raise DataError(f"{path}: neither an LMDB (data.mdb) nor a folder of crops ({LABELS})")


def find_sources(directory: str | Path) -> list[Path]:
    """The data sets at `directory`: itself if it is one, else those directly in it, sorted by name.

    Raises:
        DataError: no such folder, or no data set in it.
    """
    directory = Path(directory)
    if _is_source(directory):
        return [directory]
    if not directory.is_dir():
        raise DataError(f"{directory}: no such folder")
    # Hidden folders are LMDBs still being written.
    found = sorted(entry for entry in directory.iterdir() if not entry.name.startswith(".") and _is_source(entry))
    if not found:
        raise DataError(
            f"{directory}: no data set here or directly below: expected LMDBs (data.mdb) or folders with {LABELS}"
        )
    return found


def _is_source(path: Path) -> bool:
    return (path / LABELS).is_file() or (path / "data.mdb").is_file()
