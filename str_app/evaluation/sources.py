"""Finds data sets with their official subsets and lexicons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from datasets.sample import Source
from str_app.errors import StrAppError


class _Named(Protocol):
    def identifier(self, index: int) -> str:
        """What subset and lexicon files call the sample: its path in the folder, kept by an LMDB made from it."""


@dataclass(frozen=True)
class TestSet:
    """A data set as it is evaluated.

    Attributes:
        source: images and labels.
        subsets: name → indices, from `subset_NAME.txt` files in the data set's folder.
        lexicons: index → the 50 words of `lexicon50.tsv`; empty where the set has none.
    """

    __test__ = False  # not for pytest, whatever its name begins with

    source: Source
    subsets: Mapping[str, frozenset[int]]
    lexicons: Mapping[int, Sequence[str]]


def open_test_sets(directories: Sequence[Path]) -> list[TestSet]:
    """Every data set that `directories` are or hold, in the order given.

    Raises:
        StrAppError: a directory without any data set.
        DataError: a damaged data set, or a subset that names images which the set has not.
    """
    from datasets.opening import find_sources

    found: list[TestSet] = []
    for directory in directories:
        paths = find_sources(directory)
        if not paths:
            raise StrAppError(f"{directory}: no LMDB (data.mdb) and no folder with images/ and labels.tsv in it")
        found.extend(open_test_set(Path(path)) for path in paths)
    return found


def open_test_set(path: Path) -> TestSet:
    """One data set with the subsets and lexicons that lie in its folder."""
    from datasets.lexicon import read_lexicons, read_subset
    from datasets.opening import open_source

    source = open_source(path)
    folder = path if path.is_dir() else path.parent
    files = sorted(folder.glob("subset_*.txt"))
    lexicon_file = folder / "lexicon50.tsv"
    if not files and not lexicon_file.is_file():
        return TestSet(source, {}, {})
    named = cast(_Named, source)
    place_of = {named.identifier(index): index for index in range(len(source))}
    subsets = {}
    for file in files:
        names = read_subset(file)
        missing = [name for name in names if name not in place_of]
        if missing:
            raise StrAppError(f"{file}: {len(missing)} entries are not in the data set, the first {missing[0]!r}")
        subsets[file.stem.removeprefix("subset_")] = frozenset(place_of[name] for name in names)
    lexicons = {}
    if lexicon_file.is_file():
        words = read_lexicons(lexicon_file)
        lexicons = {place_of[name]: words[name] for name in words if name in place_of}
    return TestSet(source, subsets, lexicons)
