"""ICDAR 2013 and 2015, word recognition task (Karatzas et al.): lines of `word_1.png, "Tiredness"`.

Training archives have `gt.txt` next to the crops. Test crops have a folder of their own and their labels are in
`Challenge2_Test_Task3_GT.txt` (2013) or `Challenge4_Test_Task3_GT.txt` (2015). `coords.txt` is not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from str_app.datasets.converters.record import Record, Records, Skipped, existing_file, labelled_file, subfolders_of
from str_app.datasets.text_files import read_lines

_LINE = re.compile(r'\s*([^,]+?)\s*,\s*"(.*)"\s*', re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\])')


def read(source: Path, split: str | None = None) -> Records:
    """Samples of one ground-truth file.

    Args:
        source: the file, or a folder with the file in it or one level below. The crops are next to the file, or in
            one of the folders next to it.
        split: `train` or `test`, if the folder has both.

    Raises:
        DataError: no ground truth, several, or one that is not text.
    """
    path = source if source.is_file() else _ground_truth(source, split)
    lines = read_lines(path)
    return Records(sum(1 for line in lines if line.strip()), _records(path, lines))


def _ground_truth(source: Path, split: str | None) -> Path:
    files = [path for path in (*source.glob("*.txt"), *source.glob("*/*.txt")) if path.stem.lower().endswith("gt")]
    files = [path for path in files if not path.name.startswith(".")]
    if split:
        files = [path for path in files if split.lower() in str(path.relative_to(source)).lower()]
    return existing_file(sorted(files) or [source / "gt.txt"], f"{source}: the ground truth")


def _records(path: Path, lines: list[str]) -> Iterator[Record | Skipped]:
    subfolders = subfolders_of(path.parent)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            yield Skipped(f"{path.name} line {number}", 'not a line of `name, "text"`')
            continue
        yield labelled_file(path.parent, match[1], _ESCAPED.sub(r"\1", match[2]), subfolders=subfolders)
