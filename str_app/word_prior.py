"""What words are likely before anybody has looked: it settles what a picture leaves in doubt."""

from __future__ import annotations

import gzip
import math
import re
from bisect import bisect_left
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

# A reading's bonus is WEIGHT · ln(frequency / UNKNOWN); chosen on validation crops, see docs/training.md.
WEIGHT = 0.35
UNKNOWN = 1e-11  # frequency of what is neither a known word nor a number
NUMBERS = 0.05  # share of numbers in what signs say; each digit more makes one of them ten times as rare
# What stands around a word, and what digits are grouped by.
_AROUND = ".,!?:;\"'()-&*#$%+"
_GROUPED = re.compile(r"[.,:/-]")
FIRST = 3  # letters by which outlooks are told apart


class WordPrior:
    """How much more likely texts are than unknown ones, as an addition to their log-probabilities.

    A noisy channel: log P(text | crop) + bonus(text). The network's own sense of language comes from labels that it
    was trained on, words by a root of their frequency; the weight below 1 accounts for that.

    Args:
        frequencies: of lower-case words, as shares of running text.

    Attributes:
        most: the largest bonus there is.
    """

    def __init__(self, frequencies: Mapping[str, float]) -> None:
        bonuses = {share: _bonus(share) for share in {*frequencies.values(), NUMBERS / 10}}  # few, for many words
        self._bonuses = {word: bonuses[share] for word, share in frequencies.items()}
        self.most = max(bonuses.values())
        self._sorted = sorted(self._bonuses)
        self._best: dict[str, float] = {}  # of the words with the same first letters
        for word, bonus in self._bonuses.items():
            for length in range(1, FIRST + 1):
                self._best[word[:length]] = max(bonus, self._best.get(word[:length], 0.0))

    @classmethod
    @cache
    def released(cls) -> WordPrior:
        """Of 200,000 words, most of them English (`scripts/make_words.py`)."""
        frequencies = {}
        with (files(__package__) / "words.txt.gz").open("rb") as packed, gzip.open(packed, "rt") as lines:
            for line in lines:
                if not line.startswith("#"):
                    exponent, *words = line.split()
                    frequencies.update(dict.fromkeys(words, 10.0 ** float(exponent)))
        return cls(frequencies)

    def __call__(self, text: str) -> float:
        """The bonus of `text` in nats, at least 0; case, possessive 's and marks around it do not count."""
        word = text.lower().strip(_AROUND).removesuffix("'s")
        if word.isalpha():
            return self._bonuses.get(word, 0.0)
        digits = _GROUPED.sub("", word)
        # isdigit alone holds for ², too.
        return _bonus(NUMBERS * 10.0 ** -len(digits)) if digits.isascii() and digits.isdigit() else 0.0

    def outlook(self, beginning: str) -> float:
        """No less than the bonus of any text that begins so."""
        stem = beginning.lower().lstrip(_AROUND)
        if not stem:
            return self.most
        if not stem.isalpha():
            return self(stem)  # more digits are rarer, and after a mark a word has ended
        place = bisect_left(self._sorted, stem)
        known = place < len(self._sorted) and self._sorted[place].startswith(stem)
        return self._best[stem[:FIRST]] if known else 0.0


def _bonus(frequency: float) -> float:
    return WEIGHT * max(0.0, math.log(frequency / UNKNOWN))
