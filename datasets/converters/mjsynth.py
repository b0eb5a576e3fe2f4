"""MJSynth (Jaderberg et al., 2014): `annotation_train.txt` with lines of `./2425/1/115_Lube_45484.jpg 45484`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from str_app.datasets.converters.record import Reading, Record, Skipped, existing_file, labelled_file
from str_app.datasets.folder import read_lines

ARCHIVE_FOLDER = "mnt/ramdisk/max/90kDICT32px"  # as the official archive unpacks


def read(source: Path, split: str | None = None) -> Reading:
    """Samples of one split; the label is the middle of the file's name, the number after it is passed over.

    The archive is known to hold a few empty images; they are skipped and named when the samples are written.

    Args:
        source: the folder with `annotation_train.txt`, or the one the archive was unpacked in.
        split: `train`, `val` or `test`; may be left out where only one is there.

    Raises:
        DataError: no such split, or several.
    """
    folder = source / ARCHIVE_FOLDER if (source / ARCHIVE_FOLDER).is_dir() else source
    splits = [split] if split else ["train", "val", "test"]
    path = existing_file([folder / f"annotation_{name}.txt" for name in splits], f"{source}: MJSynth's annotation")
    lines = [line for line in read_lines(path) if line.strip()]
    return Reading(len(lines), _records(folder, lines))


def _records(folder: Path, lines: list[str]) -> Iterator[Record | Skipped]:
    for line in lines:
        name = PurePosixPath(line.split()[0])
        before, _, rest = name.stem.partition("_")
        text, _, after = rest.rpartition("_")
        if not (before.isdigit() and after.isdigit()):
            yield Skipped(str(name), "the file's name is not NUMBER_WORD_NUMBER")
        else:
            yield labelled_file(folder, str(name), text)
