"""Texts of the crops: words by frequency, numbers, prices, addresses, invented names."""

from __future__ import annotations

import hashlib
import math
import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from str_app.datasets.renderer import patterns
from str_app.datasets.sample import DataError
from str_app.datasets.text_files import read_lines

MAX_LENGTH = 32  # characters; the maximum of the presets
# Words of signs and packages are rarer in running text: an exponent below 1 flattens the frequencies.
FREQUENCY_EXPONENT = 0.62
ENGLISH_WORDS = 150_000
OTHER_LANGUAGES = ("de", "fr", "es", "it", "nl", "pt")
OTHER_WORDS = 20_000
OTHER_SHARE = 0.10
UNIFORM_SHARE = 0.08  # of draws ignore frequency altogether
PRINTABLE = frozenset(chr(code) for code in range(33, 127))


class WordError(DataError):
    """A word list that cannot be used."""


class WordList:
    """Words with weights.

    Args:
        words: distinct words of printable ASCII, at most 32 characters each.
        weights: positive, as many as words; any scale.
        left_out: words that cannot be drawn, for messages.
    """

    def __init__(self, words: Sequence[str], weights: Sequence[float], left_out: Sequence[str] = ()) -> None:
        if not words:
            raise WordError("the word list is empty")
        self.left_out = tuple(left_out)
        self._words = tuple(words)
        self._cumulative = _cumulative(np.asarray(weights, dtype=np.float64))
        short = [i for i, word in enumerate(words) if len(word) <= 3]
        self._short = tuple(words[i] for i in short)
        self._short_cumulative = _cumulative(np.asarray([weights[i] for i in short], dtype=np.float64) ** 0.7)

    def __len__(self) -> int:
        return len(self._words)

    @property
    def fingerprint(self) -> str:
        """Short hash of the words and their weights."""
        digest = hashlib.sha256("\n".join(self._words).encode())
        digest.update(self._cumulative.round(9).tobytes())
        return digest.hexdigest()[:12]

    def draw(self, rng: np.random.Generator) -> str:
        """A random word by weight; `UNIFORM_SHARE` of them uniformly."""
        if rng.random() < UNIFORM_SHARE:
            return self._words[int(rng.integers(len(self._words)))]
        return self._words[int(np.searchsorted(self._cumulative, rng.random(), side="right"))]

    def draw_short(self, rng: np.random.Generator) -> str:
        """A word of one to three characters."""
        if not self._short:
            return self.draw(rng)[:3]
        return self._short[int(np.searchsorted(self._short_cumulative, rng.random(), side="right"))]


def _cumulative(weights: np.ndarray) -> np.ndarray:
    if not len(weights):
        return weights
    cumulative = np.cumsum(weights)
    return np.asarray(cumulative / cumulative[-1])


def frequent_words() -> WordList:
    """English words and some of six other languages, weighted by a power of their frequency (`wordfreq`)."""
    from wordfreq import get_frequency_dict, top_n_list

    weights: dict[str, float] = {}
    for language, count, share in [
        ("en", ENGLISH_WORDS, 1 - OTHER_SHARE),
        *((code, OTHER_WORDS, OTHER_SHARE / len(OTHER_LANGUAGES)) for code in OTHER_LANGUAGES),
    ]:
        frequencies = get_frequency_dict(language, "best")
        usable = {
            word: frequencies[word] ** FREQUENCY_EXPONENT
            for word in top_n_list(language, count)
            if len(word) <= MAX_LENGTH and PRINTABLE.issuperset(word)
        }
        scale = share / sum(usable.values())
        for word, weight in usable.items():
            weights[word] = weights.get(word, 0.0) + weight * scale
    words = sorted(weights)
    return WordList(words, [weights[word] for word in words])


def read_words(path: str | Path) -> WordList:
    """Words of a text file: one per line, optionally followed by white space and a count; `#` starts a comment line.

    Raises:
        WordError: the file cannot be read, has no usable word, or has a count that is not a number.
    """
    try:
        lines = read_lines(path)
    except DataError as error:
        raise WordError(f"cannot read the word list: {error}") from error
    counts: dict[str, float] = {}
    unusable: list[str] = []
    for number, line in enumerate(lines, 1):
        parts = line.split()
        if not parts or (line.startswith("#") and len(parts) > 1):
            continue
        try:
            count = float(parts[1]) if len(parts) > 1 else 1.0
        except ValueError:
            count = math.nan
        if not math.isfinite(count):
            raise WordError(f"{path} line {number}: the count {parts[1]!r} is not a number")
        if count > 0 and len(parts[0]) <= MAX_LENGTH and PRINTABLE.issuperset(parts[0]):
            counts[parts[0]] = counts.get(parts[0], 0.0) + count
        elif count > 0:
            unusable.append(parts[0])
    if not counts:
        raise WordError(f"{path}: no word of 1 to {MAX_LENGTH} printable ASCII characters")
    words = sorted(counts)
    return WordList(words, [counts[word] ** FREQUENCY_EXPONENT for word in words], unusable)


class TextSource:
    """Draws the text of a crop: 1 to 32 printable ASCII characters.

    Args:
        words: the word list.
        only_words: draw words of the list only, unchanged.
    """

    def __init__(self, words: WordList, only_words: bool = False) -> None:
        self.words = words
        self.only_words = only_words

    @property
    def fingerprint(self) -> str:
        """Short hash of the words, their weights and `only_words`."""
        return f"{self.words.fingerprint} {self.only_words}"

    def draw(self, rng: np.random.Generator) -> str:
        """One text. The shares follow real crops of signs, menus, packages and adverts."""
        if self.only_words:
            return self.words.draw(rng)
        kind = rng.random()
        if kind < 0.585:
            text = letter_case(rng, self.words.draw(rng))
        elif kind < 0.705:
            text = letter_case(rng, self.words.draw_short(rng))
        elif kind < 0.72:
            text = string.ascii_letters[int(rng.integers(52))]
        elif kind < 0.845:
            text = patterns.number(rng)
        elif kind < 0.905:
            text = patterns.punctuated(rng, letter_case(rng, self.words.draw(rng)))
        elif kind < 0.92:
            text = patterns.address(rng, self.words.draw(rng), self.words.draw(rng))
        elif kind < 0.95:
            text = letter_case(rng, patterns.invented_name(rng))
        elif kind < 0.965:
            text = patterns.random_string(rng, string.digits + string.ascii_uppercase)
        elif kind < 0.97:
            text = patterns.random_string(rng, string.digits + string.ascii_letters + string.punctuation)
        else:
            text = patterns.with_random_punctuation(rng, letter_case(rng, self.words.draw(rng)))
        return text[:MAX_LENGTH]


def letter_case(rng: np.random.Generator, word: str) -> str:
    """More than half of the words in capitals, as on signs; else capitalised, unchanged or mixed."""
    kind = rng.random()
    if kind < 0.54:
        return word.upper()
    if kind < 0.76:
        return word[:1].upper() + word[1:]
    if kind < 0.96:
        return word
    if kind < 0.98 and len(word) > 3:  # two words as one: TrinityLeeds
        cut = int(rng.integers(2, len(word) - 1))
        return word[:cut].capitalize() + word[cut:].capitalize()
    upper = rng.random(len(word)) < 0.5
    return "".join(char.upper() if flag else char for char, flag in zip(word, upper, strict=True))
