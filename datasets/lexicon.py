"""What lies beside a benchmark's samples: lists of subsets and the words a reading may be chosen from.

`subset_NAME.txt` holds one identifier a line; `lexicon50.tsv` holds `identifier TAB word,word,…`. Both name samples as
`Source.identifier` does, and both stand in the folder or in the LMDB's folder.
"""

from __future__ import annotations

from pathlib import Path

from str_app.datasets.folder import read_lines, read_tab_separated
from str_app.datasets.sample import DataError

LEXICON = "lexicon50.tsv"


def find_subsets(directory: str | Path) -> dict[str, Path]:
    """Subset lists beside a source, by name (`subset_1015.txt` is `1015`), sorted."""
    return {path.stem.removeprefix("subset_"): path for path in sorted(Path(directory).glob("subset_*.txt"))}


def read_subset(path: str | Path) -> list[str]:
    """Identifiers of the samples that belong to a subset.

    Raises:
        DataError: no such file, not UTF-8, or empty.
    """
    identifiers = [line for line in read_lines(path) if line]
    if not identifiers:
        raise DataError(f"{path}: the subset is empty")
    return identifiers


def read_lexicons(path: str | Path) -> dict[str, list[str]]:
    """Words that each sample's reading may be chosen from, by identifier.

    Raises:
        DataError: no such file, not UTF-8, a line without a tab, or one without words.
    """
    lexicons: dict[str, list[str]] = {}
    for identifier, words in read_tab_separated(path):
        lexicons[identifier] = [word for word in words.split(",") if word]
        if not lexicons[identifier]:
            raise DataError(f"{path}: no words for {identifier}")
    return lexicons
