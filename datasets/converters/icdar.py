"""ICDAR 2013 and 2015, word recognition task (Karatzas et al.): lines of `word_1.png, "Tiredness"`.

Training archives hold `gt.txt` beside the crops; the test crops come in a folder of their own and their labels as
`Challenge2_Test_Task3_GT.txt` (2013) or `Challenge4_Test_Task3_GT.txt` (2015). `coords.txt` is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from str_app.datasets.converters.record import Reading, Record, Skipped, existing_file, labelled_file
from str_app.datasets.folder import read_lines

_LINE = re.compile(r'\s*([^,]+?)\s*,\s*"(.*)"\s*', re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\])')


def read(source: Path, split: str | None = None) -> Reading:
    """Samples of one ground-truth file.

    Args:
        source: the file itself, or a folder that holds it, directly or one level below; the crops lie beside the file
            or in one of the folders beside it.
        split: `train` or `test`, where the folder holds both.

    Raises:
        DataError: no ground truth, several, or one that is not UTF-8.
    """
    path = source if source.is_file() else _ground_truth(source, split)
    lines = read_lines(path)
    return Reading(sum(1 for line in lines if line.strip()), _records(path, lines))


def _ground_truth(source: Path, split: str | None) -> Path:
    found = [path for path in (*source.glob("*.txt"), *source.glob("*/*.txt")) if path.stem.lower().endswith("gt")]
    if split:
        found = [path for path in found if split.lower() in str(path.relative_to(source)).lower()]
    return existing_file(sorted(found) or [source / "gt.txt"], f"{source}: the ground truth")


def _records(path: Path, lines: list[str]) -> Iterator[Record | Skipped]:
    folders = [path.parent, *sorted(entry for entry in path.parent.iterdir() if entry.is_dir())]
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            yield Skipped(f"{path.name} line {number}", 'not a line of `name, "text"`')
            continue
        name, text = match[1], _ESCAPED.sub(r"\1", match[2])
        folder = next((folder for folder in folders if (folder / name).is_file()), path.parent)
        yield labelled_file(path.parent, (folder / name).relative_to(path.parent).as_posix(), text)
