"""MJSynth (Jaderberg et al., 2014): `annotation_train.txt` with lines of `./2425/1/115_Lube_45484.jpg 45484`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from str_app.datasets.converters.record import Record, Records, Skipped, existing_file, labelled_file
from str_app.datasets.text_files import read_lines

ARCHIVE_FOLDER = "mnt/ramdisk/max/90kDICT32px"  # as the official archive unpacks


def read(source: Path, split: str | None = None) -> Records:
    """Samples of one split; the label is the middle part of the file name; the number after it is ignored.

    The archive contains a few empty images; they are skipped and reported when the LMDB is written.

    Args:
        source: the folder with `annotation_train.txt`, or the folder where the archive was unpacked.
        split: `train`, `val` or `test`; optional if there is only one.

    Raises:
        DataError: no such split, or several.
    """
    folder = source / ARCHIVE_FOLDER if (source / ARCHIVE_FOLDER).is_dir() else source
    splits = [split] if split else ["train", "val", "test"]
    path = existing_file([folder / f"annotation_{name}.txt" for name in splits], f"{source}: MJSynth's annotation")
    lines = [line for line in read_lines(path) if line.strip()]
    return Records(len(lines), _records(folder, lines))


def _records(folder: Path, lines: list[str]) -> Iterator[Record | Skipped]:
    for line in lines:
        name = PurePosixPath(line.split()[0])
        before, _, rest = name.stem.partition("_")
        text, _, after = rest.rpartition("_")
        if not (before.isdigit() and after.isdigit()):
            yield Skipped(str(name), "the file name is not NUMBER_WORD_NUMBER")
        else:
            yield labelled_file(folder, str(name), text)
