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
MEASURES = 0.01  # share of each unit below among what may follow a number
UNITS = frozenset(
    "st nd rd th am pm h hr hrs min mins sec s ms mm cm m km mi ft yd in kmh kmph mph mg g kg lb lbs oz ml cl l gal "
    "w kw kwh v mv hz khz mhz ghz b kb mb gb tb bps kbps mbps gbps k c f p x d".split()
)
_BEGUN = frozenset(unit[:length] for unit in UNITS for length in range(1, len(unit) + 1))
# What stands around a word, and what digits are grouped by.
_AROUND = ".,!?:;\"'()-&*#$%+"
_GROUPED = re.compile(r"[.,:/-]")
_NUMBER = re.compile(r"([0-9.,:/-]*[0-9][.,:/-]*)([a-z]*)")
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
        word = text.lower().strip(_AROUND)
        owner = word.removesuffix("'s")
        return self._known(word) or self._known(owner) or _number(owner, UNITS)

    def outlook(self, beginning: str) -> float:
        """No less than the bonus of any text that begins so."""
        stem = beginning.lower().lstrip(_AROUND)
        if not stem:
            return self.most
        place = bisect_left(self._sorted, stem)
        known = place < len(self._sorted) and self._sorted[place].startswith(stem)
        longer = self._best[stem[:FIRST]] if known else 0.0
        if stem.isalpha():
            return longer
        # More digits are rarer, and after a mark a word has ended; a unit may be half said.
        return max(longer, self(stem), _number(stem.strip(_AROUND), _BEGUN))

    def _known(self, word: str) -> float:
        return self._bonuses.get(word, 0.0)


def _number(word: str, units: frozenset[str]) -> float:
    """The bonus of a number, alone or with one of the units behind it."""
    found = _NUMBER.fullmatch(word)
    if not found or (found[2] and found[2] not in units):
        return 0.0
    return _bonus(NUMBERS * 10.0 ** -len(_GROUPED.sub("", found[1])) * (MEASURES if found[2] else 1.0))


def _bonus(frequency: float) -> float:
    return WEIGHT * max(0.0, math.log(frequency / UNKNOWN))
