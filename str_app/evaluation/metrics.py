"""The field's metrics: exact match under three alphabets, edit distance, calibration, confidence intervals."""

from __future__ import annotations

import math
import string
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ALPHABET_36 = frozenset(string.digits + string.ascii_lowercase)
ALPHABET_62 = frozenset(string.digits + string.ascii_letters)
ALPHABET_94 = frozenset(string.digits + string.ascii_letters + string.punctuation)


def normalise(text: str) -> str:
    """Text under the default protocol: NFKD, lower case, only [0-9a-z]. Applied to labels and readings alike."""
    return "".join(char for char in unicodedata.normalize("NFKD", text).lower() if char in ALPHABET_36)


def letters(text: str) -> str:
    """Text of any script, for comparison without case: NFC, lower case, only letters with their accents and digits."""
    composed = unicodedata.normalize("NFC", text).lower()
    # Marks are kept: many scripts write vowels as marks.
    return "".join(char for char in composed if unicodedata.category(char)[0] in "LMN")


def restrict(text: str, alphabet: frozenset[str]) -> str:
    """NFKD text with its case, without characters outside `alphabet`."""
    return "".join(char for char in unicodedata.normalize("NFKD", text) if char in alphabet)


def edit_distance(first: str, second: str) -> int:
    """Levenshtein distance: the minimum number of insertions, deletions and substitutions."""
    row = list(range(len(second) + 1))
    for index, char in enumerate(first, 1):
        diagonal, row[0] = row[0], index
        for column, other_char in enumerate(second, 1):
            diagonal, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, diagonal + (char != other_char)),
            )
    return row[-1]


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson score interval of a proportion (1927), 95 %; (0, 1) without trials.

    >>> [round(bound, 4) for bound in wilson_interval(80, 100)]
    [0.7112, 0.8666]
    """
    if trials == 0:
        return 0.0, 1.0
    share, z = successes / trials, 1.959964
    half_width = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    centre = share + z * z / (2 * trials)
    return max(0.0, (centre - half_width) / scale), min(1.0, (centre + half_width) / scale)


def expected_calibration_error(confidences: Sequence[float], correct: Sequence[bool]) -> float:
    """Mean difference between confidence and accuracy over 15 bins of equal width, weighted by their sizes.

    Naeini et al., 2015; a bin holds the confidences in (low, high], the first also 0.
    """
    bins, confidence = 15, np.asarray(confidences, dtype=np.float64)
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    # Size × |mean confidence − accuracy| of each bin.
    gaps = np.bincount(index, confidence - np.asarray(correct, dtype=np.float64))
    return float(np.abs(gaps).sum() / max(1, len(confidence)))


def rounded(values: Mapping[str, Any], **exceptions: int) -> dict[str, Any]:
    """`values` for JSON: floats, also those in tuples, to two decimals or those of `exceptions`."""

    def rounded_value(value: Any, places: int) -> Any:
        if isinstance(value, tuple):
            return [rounded_value(item, places) for item in value]
        return round(value, places) if isinstance(value, float) else value

    return {key: rounded_value(value, exceptions.get(key, 2)) for key, value in values.items()}
