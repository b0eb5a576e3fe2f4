"""The file of `--lexicon`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from str_app.errors import StrAppError

if TYPE_CHECKING:
    from str_app.reader import Reader


class LexiconFile:
    """The words of a text file, one per line; lines that begin with `# ` are comments.

    Args:
        path: the file; read at once.

    Raises:
        DataError: not a text file.
        StrAppError: no word in it.
    """

    def __init__(self, path: Path) -> None:
        from str_app.datasets.text_files import read_lines

        self._path = path
        lines = enumerate(read_lines(path), 1)
        self._numbered = [
            (number, line.strip()) for number, line in lines if line.strip() and not line.startswith("# ")
        ]
        if not self._numbered:
            raise StrAppError(f"{path}: no word in this lexicon; write one word per line")

    def words_for(self, reader: Reader) -> list[str]:
        """The words. Raises StrAppError, with file and line, for one that the model cannot read."""
        from str_app.decoding import Trie

        number = 0

        def counted() -> Iterator[str]:
            nonlocal number
            for number, word in self._numbered:  # noqa: B007 - named where the trie refuses a word
                yield word

        try:
            Trie(counted(), reader.charset, reader.engine.max_length)
        except ValueError as error:
            raise StrAppError(f"{self._path} line {number}: {error}") from None
        return [word for _, word in self._numbered]
