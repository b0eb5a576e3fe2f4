"""SVT-Perspective (Phan et al., ICCV 2013) and CUTE80 (Risnumawan et al., 2014) as the field hands them around.

SVTP: `gt.txt` with lines of `13_15_0_par.jpg WYNDHAM`, crops in `par1/`. CUTE80: `test_label.txt` or `gt.txt` with
lines of `timage/001.jpg RONALDO 1 RONALDO`, whose third and fourth fields repeat what is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from str_app.datasets.converters.record import Reading, Record, Skipped, existing_file, labelled_file
from str_app.datasets.folder import read_lines

LISTS = ("gt.txt", "test_label.txt", "labels.txt")


def read_svtp(source: Path, split: str | None = None) -> Reading:
    """Samples of SVTP; everything after the first white space is the label. `split` is not used: there is one.

    Raises:
        DataError: no list, several, or one that is not UTF-8.
    """
    return _read(source, fields=2)


def read_cute80(source: Path, split: str | None = None) -> Reading:
    """Samples of CUTE80; the second field is the label. `split` is not used: there is one.

    Raises:
        DataError: no list, several, or one that is not UTF-8.
    """
    return _read(source, fields=3)


def _read(source: Path, fields: int) -> Reading:
    path = source if source.is_file() else existing_file([source / name for name in LISTS], f"{source}: the labels")
    lines = [line for line in read_lines(path) if line.strip()]
    return Reading(len(lines), _records(path, lines, fields))


def _records(path: Path, lines: list[str], fields: int) -> Iterator[Record | Skipped]:
    folders = [path.parent, *sorted(entry for entry in path.parent.iterdir() if entry.is_dir())]
    for line in lines:
        name, *rest = line.split(maxsplit=fields - 1)
        folder = next((folder for folder in folders if (folder / name).is_file()), path.parent)
        text = rest[0].strip() if rest else ""
        yield labelled_file(path.parent, (folder / name).relative_to(path.parent).as_posix(), text)
