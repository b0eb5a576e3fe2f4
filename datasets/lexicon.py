"""Lists beside a benchmark's samples: subsets, and the lexicon of each sample.

`subset_NAME.txt` has one identifier per line; `lexicon50.tsv` has `identifier TAB word,word,…`. Identifiers are
those of `Source.identifier`. Both files are in the folder of crops or in the LMDB's folder.
"""

from __future__ import annotations

from pathlib import Path

from str_app.datasets.sample import DataError
from str_app.datasets.text_files import read_lines, read_tab_separated

LEXICON = "lexicon50.tsv"


def find_subsets(directory: str | Path) -> dict[str, Path]:
    """Subset lists beside a source, by name (`subset_1015.txt` is `1015`), sorted."""
    return {path.stem.removeprefix("subset_"): path for path in sorted(Path(directory).glob("subset_*.txt"))}


def read_subset(path: str | Path) -> list[str]:
    """Identifiers of a subset's samples.

    Raises:
        DataError: see `read_text`; or the file is empty.
    """
    identifiers = [line for line in read_lines(path) if line.strip()]
    if not identifiers:
        raise DataError(f"{path}: the subset is empty")
    return identifiers


def read_lexicons(path: str | Path) -> dict[str, list[str]]:
    """The lexicon of each sample, by identifier.

    Raises:
        DataError: see `read_tab_separated`; or a line without words.
    """
    lexicons: dict[str, list[str]] = {}
    for identifier, words in read_tab_separated(path):
        lexicons[identifier] = [word for word in words.split(",") if word]
        if not lexicons[identifier]:
            raise DataError(f"{path}: no words for {identifier}")
    return lexicons
