"""Text to class indices and back. Outside the networks text is `str`; only this module knows indices."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Iterable, Sequence

PRINTABLE_94 = string.digits + string.ascii_letters + string.punctuation


class CharsetError(ValueError):
    """A charset that cannot be used, or text outside it."""


class Charset:
    """An ordered set of characters; index 0 is the end token, character k has index k + 1.

    The start token shares index 0 with the end token: it is fed to the decoder before the first character, where no
    end token can be, so there are exactly `len(charset) + 1` classes.

    Args:
        characters: distinct single characters, in the order that fixes their indices.

    Raises:
        CharsetError: empty, or a character occurs twice or is a control character.
    """

    END = 0

    def __init__(self, characters: str | Iterable[str] = PRINTABLE_94) -> None:
        chars = list(characters)
        if not chars:
            raise CharsetError("the charset is empty: give at least one character")
        seen: set[str] = set()
        for number, char in enumerate(chars, 1):
            if len(char) != 1:
                raise CharsetError(f"charset entry {number} is {char!r}: each entry must be one character")
            if not char.isprintable():
                raise CharsetError(f"charset entry {number} is {char!r}: control characters cannot be seen in an image")
            if char in seen:
                accents = any(map(unicodedata.combining, chars))
                hint = ", or save the charset in NFC: its accents are characters of their own" if accents else ""
                raise CharsetError(f"charset entry {number}, {char!r}, occurs twice: remove one of them{hint}")
            seen.add(char)
        self.characters = "".join(chars)
        self._index = {char: i for i, char in enumerate(chars, 1)}
        self.other_case = (self.END, *(self._index.get(_swapped(char), i) for i, char in enumerate(chars, 1)))
        """Of each class, the class of the same letter in the other case; the class itself if there is none."""

    def __len__(self) -> int:
        return len(self.characters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Charset) and self.characters == other.characters

    def __hash__(self) -> int:
        return hash(self.characters)

    def __contains__(self, char: str) -> bool:
        return char in self._index

    def __repr__(self) -> str:
        return f"Charset({self.characters!r})"

    @property
    def num_classes(self) -> int:
        """Characters plus the end token."""
        return len(self.characters) + 1

    def encode(self, text: str) -> list[int]:
        """Indices of `text` with the end token appended.

        Raises:
            CharsetError: a character of `text` is not in the charset.
        """
        try:
            return [self._index[char] for char in text] + [self.END]
        except KeyError as error:
            raise CharsetError(f"character {error.args[0]!r} of {text!r} is not in the charset") from None

    def decode(self, indices: Sequence[int]) -> str:
        """Text up to the first end token, or to the end of `indices` if it has none."""
        chars: list[str] = []
        for index in indices:
            if index == self.END:
                break
            chars.append(self.characters[index - 1])
        return "".join(chars)

    def spelled(self, text: str) -> str:
        """The text, with accents as the charset has them: in NFC, such as ü, or in NFD, where two dots follow a u.

        A text that it cannot write in any form is returned as it is.
        """
        forms = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
        return next((form for form in (text, *forms) if not self.missing(form)), text)

    def missing(self, text: str) -> set[str]:
        """Characters of `text` that are not in the charset."""
        return {char for char in text if char not in self._index}


def _swapped(char: str) -> str:
    """The letter in the other case if that is reversible, else the letter itself (ß → SS is not)."""
    swapped = char.swapcase()
    return swapped if swapped.swapcase() == char else char
