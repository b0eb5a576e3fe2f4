"""SVT-Perspective (Phan et al., ICCV 2013) and CUTE80 (Risnumawan et al., 2014) as they are commonly distributed.

SVTP: `gt.txt` with lines of `13_15_0_par.jpg WYNDHAM`, crops in `par1/`. CUTE80: `test_label.txt` or `gt.txt` with
lines of `timage/001.jpg RONALDO 1 RONALDO`, whose third and fourth fields are not used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from str_app.datasets.converters.record import Record, Records, Skipped, existing_file, labelled_file, subfolders_of
from str_app.datasets.text_files import read_lines

LISTS = ("gt.txt", "test_label.txt", "labels.txt")


def read_svtp(source: Path, split: str | None = None) -> Records:
    """Samples of SVTP; everything after the first white space is the label. `split` is not used: there is only one.

    Raises:
        DataError: no list, several, or one that is not text.
    """
    return _read(source, fields=2)


def read_cute80(source: Path, split: str | None = None) -> Records:
    """Samples of CUTE80; the second field is the label. `split` is not used: there is only one.

    Raises:
        DataError: no list, several, or one that is not text.
    """
    return _read(source, fields=3)


def _read(source: Path, fields: int) -> Records:
    path = source if source.is_file() else existing_file([source / name for name in LISTS], f"{source}: the labels")
    lines = [line for line in read_lines(path) if line.strip()]
    return Records(len(lines), _records(path, lines, fields))


def _records(path: Path, lines: list[str], fields: int) -> Iterator[Record | Skipped]:
    subfolders = subfolders_of(path.parent)
    for line in lines:
        name, *rest = line.split(maxsplit=fields - 1)
        yield labelled_file(path.parent, name, rest[0].strip() if rest else "", subfolders=subfolders)
