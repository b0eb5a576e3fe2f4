"""How likely words and numbers are regardless of the picture: settles what the picture leaves in doubt."""

from __future__ import annotations

import gzip
import math
import re
from bisect import bisect_left
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

# A text's bonus is WEIGHT · ln(frequency / UNKNOWN); chosen on validation crops: docs/log/reading.md, "Known words and
# numbers".
WEIGHT = 0.35
UNKNOWN = 1e-11  # assumed frequency of a text that is neither a known word nor a number
NUMBERS = 0.05  # share of numbers among all texts; each further digit makes a given number ten times rarer
MEASURES = 0.01  # share of numbers that are followed by a given one of the units below
UNITS = frozenset(
    "st nd rd th am pm h hr hrs min mins sec s ms mm cm m km mi ft yd in kmh kmph mph mg g kg lb lbs oz ml cl l gal "
    "w kw kwh v mv hz khz mhz ghz b kb mb gb tb bps kbps mbps gbps k c f p x d".split()
)
_UNIT_PREFIXES = frozenset(unit[:length] for unit in UNITS for length in range(1, len(unit) + 1))
# Marks around a word, and within a number.
_AROUND = ".,!?:;\"'()-&*#$%+"
_GROUPED = re.compile(r"[.,:/-]")
_NUMBER = re.compile(r"([0-9.,:/-]*[0-9][.,:/-]*)([a-z]*)")
PREFIX_LENGTH = 3  # first letters for which the largest bonus is tabulated


class WordPrior:
    """A bonus in nats, added to the log-probability of known texts.

    A noisy channel: log P(text | crop) + bonus(text). The weight is below 1 because the network has learnt a language
    model of its own from its labels, in which words occur by a root of their frequency.

    Args:
        frequencies: of lower-case words, relative to running text.

    Attributes:
        max_bonus: the largest bonus of any text.
    """

    def __init__(self, frequencies: Mapping[str, float]) -> None:
        self._set(np.array([word.encode() for word in frequencies] or [b""]), [*frequencies.values()] or [UNKNOWN])

    def _set(self, words: npt.NDArray[np.bytes_], frequencies: npt.ArrayLike) -> None:
        # Arrays: a dictionary of 200,000 words takes four times the memory.
        order = np.argsort(words)
        shares, classes = np.unique(frequencies, return_inverse=True)  # few, for many words
        self._words = words[order]
        self._bonuses = np.array([_bonus(share) for share in shares.tolist()])[classes[order]]
        self.max_bonus = max(_bonus(NUMBERS / 10), float(self._bonuses.max()))
        # The largest bonus of the words with the same first letters.
        self._best: dict[bytes, float] = {}
        for length in range(PREFIX_LENGTH, 0, -1):  # words that are shorter count with the last
            prefixes, firsts = np.unique(self._words.astype(f"S{length}"), return_index=True)
            self._best |= zip(prefixes.tolist(), np.maximum.reduceat(self._bonuses, firsts).tolist(), strict=True)

    @classmethod
    @cache
    def released(cls) -> WordPrior:
        """Of 200,000 words, most of them English (`scripts/make_words.py`)."""
        words, shares = [], []
        with (files(__package__) / "words.txt.gz").open("rb") as packed, gzip.open(packed, "rb") as lines:
            for line in lines:
                if not line.startswith(b"#"):
                    exponent, *of_line = line.split()
                    words.append(np.array(of_line))
                    shares.append(np.full(len(of_line), 10.0 ** float(exponent)))
        prior = cls.__new__(cls)
        prior._set(np.concatenate(words), np.concatenate(shares))
        return prior

    def __call__(self, text: str) -> float:
        """The bonus of `text` in nats, at least 0; ignores case, possessive 's and surrounding marks."""
        word = text.lower().strip(_AROUND)
        base = word.removesuffix("'s")
        return self._known(word) or self._known(base) or _number(base, UNITS)

    def upper_bound(self, prefix: str) -> float:
        """No less than the bonus of any text with this prefix."""
        stem = prefix.lower().lstrip(_AROUND)
        if not stem:
            return self.max_bonus
        first = stem.encode()
        index = bisect_left(self._words, first)
        known = index < len(self._words) and self._words[index].startswith(first)
        longer = self._best[first[:PREFIX_LENGTH]] if known else 0.0
        if stem.isalpha():
            return longer
        # Further digits are rarer, and after a mark a word has ended; a unit may be incomplete.
        return max(longer, self(stem), _number(stem.strip(_AROUND), _UNIT_PREFIXES))

    def _known(self, word: str) -> float:
        key = word.encode()
        index = bisect_left(self._words, key)
        return float(self._bonuses[index]) if index < len(self._words) and self._words[index] == key else 0.0


def _number(word: str, units: frozenset[str]) -> float:
    """The bonus of a number, alone or followed by one of the units."""
    match = _NUMBER.fullmatch(word)
    if not match or (match[2] and match[2] not in units):
        return 0.0
    return _bonus(NUMBERS * 10.0 ** -len(_GROUPED.sub("", match[1])) * (MEASURES if match[2] else 1.0))


def _bonus(frequency: float) -> float:
    return WEIGHT * max(0.0, math.log(frequency / UNKNOWN))
