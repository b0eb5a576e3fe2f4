"""Opens data sets with their official subsets and lexicons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from str_app.datasets.lexicon import LEXICON, find_subsets, read_lexicons, read_subset
from str_app.datasets.opening import find_sources, open_source
from str_app.datasets.sample import DataError, Source
from str_app.decoding import Trie
from str_app.errors import StrAppError
from str_app.reader import Reader


@dataclass(frozen=True)
class TestSet:
    """A data set for evaluation.

    Attributes:
        source: images and labels.
        subsets: name → indices, from `subset_NAME.txt` files in the data set's folder.
        lexicons: index → the 50 words of `lexicon50.tsv`; empty if the set has none.
        lexicon_file: where they come from; None if the set has none.
    """

    __test__ = False  # pytest would collect it by its name

    source: Source
    subsets: Mapping[str, frozenset[int]]
    lexicons: Mapping[int, Sequence[str]]
    lexicon_file: Path | None = None

    def check_lexicons(self, reader: Reader) -> None:
        """Raise StrAppError, with file and image, for a word that the reader cannot read."""
        for index, words in self.lexicons.items():
            try:
                Trie(words, reader.charset, reader.engine.max_length)
            except ValueError as error:
                raise StrAppError(f"{self.lexicon_file}: {self.source.identifier(index)}: {error}") from None


def evenly_spaced(size: int, limit: int) -> list[int]:
    """At most `limit` indices of a data set of this size, evenly spaced."""
    count = min(limit, size)
    return [k * size // count for k in range(count)]


def open_test_sets(directories: Sequence[Path]) -> list[TestSet]:
    """Every data set in `directories`, each a data set or a folder of data sets, in the order given.

    Raises:
        DataError: a directory without a data set, a damaged data set, one that is given twice, or a subset or lexicon
            that lists images which the set does not have.
    """
    paths = [path for directory in directories for path in find_sources(directory)]
    given: dict[Path, Path] = {}
    for path in paths:
        if given.setdefault(path.resolve(), path) is not path:
            raise DataError(f"{path}: given twice: its crops would be scored twice")
    return [open_test_set(path) for path in paths]


def open_test_set(path: Path) -> TestSet:
    """One data set with the subsets and lexicons in its folder. Raises DataError as `open_test_sets`."""
    source = open_source(path)
    subset_files, lexicon_file = find_subsets(path), path / LEXICON
    if not subset_files and not lexicon_file.is_file():
        return TestSet(source, {}, {})
    indices_of: dict[str, list[int]] = {}  # a list of labels may have an image twice
    for index in range(len(source)):
        indices_of.setdefault(source.identifier(index), []).append(index)

    def indices(file: Path, names: Sequence[str]) -> list[list[int]]:
        missing = [name for name in names if name not in indices_of]
        if missing:
            raise DataError(f"{file}: {len(missing)} of its entries are not in {path}, the first {missing[0]!r}")
        return [indices_of[name] for name in names]

    subsets = {name: frozenset(chain(*indices(file, read_subset(file)))) for name, file in subset_files.items()}
    if not lexicon_file.is_file():
        return TestSet(source, subsets, {})
    words = read_lexicons(lexicon_file)
    listed = zip(indices(lexicon_file, list(words)), words.values(), strict=True)
    lexicons = {index: lexicon for found, lexicon in listed for index in found}
    return TestSet(source, subsets, lexicons, lexicon_file)
